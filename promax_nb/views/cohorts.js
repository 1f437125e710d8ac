// Groups side by side: who is in a selection, what sets it apart from another one or from the rest, what it gained.
// The same arithmetic as views.cohorts, from what the map has been given: columns, gains, texts. explorer.js follows.

const SURE = 3;  // standard errors from which a ratio of shares is told in bold: many are looked at
const FURNITURE = .5;  // share of a kind's profiles from which a word is the writer's
const MEASURES = [['gain in recall@20', 'recall@20'], ['gain in ndcg@20', 'ndcg@20'], ['lists in common', null]];

function ratioOf(a, n, b, m) {  // how many times as frequent: a of n against b of m, with Katz's interval on the log scale
  const log = Math.log((a + .5) / (n + .5)) - Math.log((b + .5) / (m + .5));
  const error = Math.sqrt(Math.max(0, 1 / (a + .5) - 1 / (n + .5) + 1 / (b + .5) - 1 / (m + .5)));
  return { lift: (a / n) / (b / m), low: Math.exp(log - 1.96 * error), high: Math.exp(log + 1.96 * error), z: error > 0 ? log / error : 0 };
}

function drawnMeans(values, seed) {  // bootstrap: means of draws with replacement
  const n = values.length, draws = Math.max(200, Math.min(2000, Math.floor(2e6 / n))), means = new Float64Array(draws);
  let state = Math.imul(seed + 1, 0x9E3779B9);
  for (let k = 0; k < draws; k++) {
    let sum = 0;
    for (let j = 0; j < n; j++) {
      state = state + 0x6D2B79F5 | 0;  // mulberry32
      let t = Math.imul(state ^ state >>> 15, 1 | state);
      t = t + Math.imul(t ^ t >>> 7, 61 | t) ^ t;
      sum += values[Math.floor(((t ^ t >>> 14) >>> 0) / 4294967296 * n)];
    }
    means[k] = sum / n;
  }
  return means;
}

function middleOf(values, draws) {  // a mean, and the middle 95 % of its draws
  const sorted = Float64Array.from(draws).sort(), at = q => sorted[Math.min(sorted.length - 1, Math.max(0, Math.round(q * (sorted.length - 1))))];
  return { middle: values, low: sorted.length ? at(.025) : NaN, high: sorted.length ? at(.975) : NaN };
}

class Groups {
  constructor(explorer) {
    this.e = explorer; this.kept = { A: null, B: null }; this.kind = 'user'; this.read = {};
    this.box = make('section', { class: 'px-groups pm-groups', 'aria-label': 'Groups side by side', hidden: true });
  }

  // --- who is compared
  keep(name, ids, told = false) {  // pin a selection; null lets it go
    this.kept[name] = ids?.length ? Int32Array.from(ids) : null;
    if (!told) this.e.hooks.onKeep?.(name, this.kept[name] ?? new Int32Array(0));
    return this.show();
  }

  named() {  // [name, nodes]: the kept groups; a selection stands in for one that is not kept
    const { A, B } = this.kept, chosen = this.e.state.selected, same = g => g && chosen && g.length === chosen.length && g.every((v, k) => v === chosen[k]);
    if (!A && !B) return chosen ? [['selection', chosen]] : [];
    const other = chosen && !same(A) && !same(B) ? chosen : null;
    return [['A', A], ['B', B]].map(([name, ids]) => ids ? [name, ids] : ['selection', other]).filter(([, ids]) => ids);
  }

  rows(kind) {  // name -> rows of a kind; the rest is everybody else
    const s = this.e.s, user = kind === 'user', start = user ? 0 : s.n_users, n = user ? s.n_users : s.n_items, taken = new Uint8Array(n), groups = [];
    for (const [name, ids] of this.named()) {
      const rows = Array.from(ids).filter(i => isUser(s, i) === user).map(i => i - start).sort((a, b) => a - b);
      rows.forEach(r => { taken[r] = 1; });
      groups.push([name, rows]);
    }
    groups.push(['rest', [...taken.keys()].filter(r => !taken[r])]);
    return groups;
  }

  // --- what sets them apart
  compare(kind) {
    const groups = this.rows(kind), sets = groups.map(g => g[1]);
    return { kind, groups, attributes: this.attributes(kind, sets), words: this.words(kind, sets), gains: kind === 'user' ? this.gains(sets) : [] };
  }

  apart(told, counts, sizes) { return { ...told, counts, sizes, ...ratioOf(counts[0], sizes[0], counts[1], sizes[1]) }; }

  surest(found) { return found.filter(f => f.counts[0] + f.counts[1] >= 3).map((f, k) => [f, k]).sort(([a, i], [b, j]) => Math.abs(b.z) - Math.abs(a.z) || i - j).map(f => f[0]); }

  attributes(kind, sets) {
    const start = kind === 'user' ? 0 : this.e.s.n_users, found = [];
    for (const c of this.e.s.columns) {
      if (!c.labels || c.name === 'kind' || c.name === 'cluster') continue;
      const counts = sets.map(rows => { const n = new Int32Array(c.labels.length); for (const r of rows) { const v = c.values[start + r]; if (v >= 0) n[v]++; } return n; }), sizes = counts.map(n => n.reduce((a, b) => a + b, 0));
      c.labels.forEach((value, v) => { const mine = counts.map(n => n[v]); if (mine.some(x => x)) found.push(this.apart({ attribute: c.name, value }, mine, sizes)); });
    }
    return this.surest(found);
  }

  readWords(kind) {  // which words stand in which profile: read once; words that most profiles have are left out
    if (this.read[kind]) return this.read[kind];
    const e = this.e, s = e.s, [start, end] = kind === 'user' ? [0, s.n_users] : [s.n_users, s.n], stop = new Set(e.parts.get('groups')?.stop ?? []);
    const number = new Map(), vocabulary = [], texts = [], often = [];
    for (let i = start; i < end; i++) {
      const mine = new Set();
      for (const [word] of (e.text(i) ?? '').toLowerCase().matchAll(/(?<![\p{L}\p{N}_])\p{L}{3,24}(?![\p{L}\p{N}_])/gu)) {
        if (stop.has(word)) continue;
        if (!number.has(word)) { number.set(word, vocabulary.length); vocabulary.push(word); often.push(0); }
        mine.add(number.get(word));
      }
      for (const w of mine) often[w]++;
      texts.push(Int32Array.from(mine));
    }
    return this.read[kind] = { vocabulary, texts, usual: often.map(n => n / (end - start) > FURNITURE) };
  }

  words(kind, sets) {
    const { vocabulary, texts, usual } = this.readWords(kind);
    const counts = sets.map(rows => { const n = new Int32Array(vocabulary.length); for (const r of rows) for (const w of texts[r]) n[w]++; return n; }), sizes = sets.map(rows => rows.length);
    return this.surest(vocabulary.map((word, w) => this.apart({ word }, counts.map(n => n[w]), sizes)).filter((_, w) => !usual[w]));
  }

  gains(sets) {  // a row a measure: a mean a group, then the difference of the first two
    const packed = this.e.parts.get('groups')?.gains;
    if (!packed) return [];
    this.gained ??= Object.fromEntries(Object.entries(packed).map(([k, v]) => [k, floats(v)]));
    return MEASURES.map(([measure, metric]) => {
      const [a, b] = metric ? [this.gained[`${metric} before`], this.gained[`${metric} after`]] : [null, this.gained[measure]], draws = [], cells = [];
      const mean = v => v.length ? v.reduce((x, y) => x + y, 0) / v.length : NaN;
      sets.forEach((rows, k) => {
        const known = rows.filter(r => b[r] === b[r]), values = known.map(r => b[r] - (a ? a[r] : 0));
        draws.push(values.length > 1 ? drawnMeans(values, k) : []);
        cells.push({ users: known.length, before: a ? mean(known.map(r => a[r])) : NaN, after: mean(known.map(r => b[r])), ...middleOf(mean(values), draws[k]) });
      });
      const both = draws[0].length && draws[1].length, m = Math.min(draws[0].length, draws[1].length);
      cells.push(middleOf(cells[0].middle - cells[1].middle, both ? Array.from({ length: m }, (_, k) => draws[0][k] - draws[1][k]) : []));
      return { measure, percent: !metric, cells };
    });
  }

  // --- to read
  async show() {  // beside the map's own answers: a large scene is compared when somebody asks
    const e = this.e, names = this.named(), run = this.showing = {};
    if (!names.length) { this.box.hidden = true; this.box.replaceChildren(); return; }
    this.box.hidden = false;
    const parts = ['groups', ...e.parts.names('texts-')].filter(k => e.parts.has(k) && !e.parts.get(k));
    if (e.s.n > MANY && !this.kept.A && !this.kept.B) { this.box.replaceChildren(make('button', { type: 'button', class: 'px-compare', text: 'compare with the rest', onclick: e.guard(() => this.table(run)) })); return; }
    if (parts.length) this.box.replaceChildren(make('div', { class: 'px-note', role: 'status', text: 'Reading the profiles …' }));
    await new Promise(r => setTimeout(r, 100));  // while somebody types or draws, the last selection is the one that counts
    await this.table(run);
  }

  async table(run) {
    const e = this.e;
    await Promise.all(['groups', ...e.parts.names('texts-')].filter(k => e.parts.has(k)).map(k => e.parts.open(k)));
    if (this.showing !== run) return;
    const there = ['user', 'item'].filter(kind => this.rows(kind)[0][1].length), kind = there.includes(this.kind) ? this.kind : there[0], made = this.made = this.compare(kind);
    const switches = there.length < 2 ? [] : [make('span', { class: 'px-kinds' }, ...there.map(k => make('button', { type: 'button', class: 'px-tool', 'aria-pressed': k === kind, text: `${k}s`, onclick: e.guard(() => { this.kind = k; return this.table(run); }) })))];
    const body = (title, ratio, rows) => rows.length ? [make('tbody', {}, make('tr', { class: 'pm-part' }, make('th', { scope: 'rowgroup' }, make('b', { text: title })), ...made.groups.map((g, k) => this.head(g, k, kind)), make('th', { text: ratio })), ...rows)] : [];
    const [one, other] = made.groups.map(g => g[0]), values = (list, said) => list.slice(0, 10).map(f => make('tr', {}, make('th', { scope: 'row' }, make('bdi', { text: said(f) })), ...f.counts.map((n, k) => this.share(n, f.sizes[k], k)), this.ratio(f)));
    this.box.replaceChildren(make('div', { class: 'px-grouphead' }, make('h3', { text: 'Groups side by side' }), ...switches, make('button', { type: 'button', class: 'px-savegroups', text: 'save as CSV', onclick: e.guard(() => this.csv()) })),
      make('table', {}, ...body('Gain by reshaping', `${one} − ${other}`, made.gains.map(g => this.means(g))), ...body('Attributes', `${one} / ${other}`, values(made.attributes, f => `${f.attribute}: ${f.value}`)), ...body('Words of profiles', `${one} / ${other}`, values(made.words, f => f.word))),
      ...this.bothNote(made),
      make('p', { text: `Ratio of shares with a 95 % interval, bold where it is more than ${SURE} standard errors from 1 (many values are looked at); gains with a 95 % bootstrap interval over users with held-out items, bold where it excludes 0.` }));
  }

  bothNote({ groups, kind }) {  // who is in two groups counts in both
    if (groups.length < 3) return [];
    const first = new Set(groups[0][1]), both = groups[1][1].filter(r => first.has(r)).length;
    return both ? [make('p', { class: 'px-both', text: `${count(both)} ${kind}s are in both groups and count in each: the groups differ more than the table can show, and the interval of the difference is too wide.` })] : [];
  }

  head([name, rows], place, kind) {
    const kept = this.kept[name];
    return make('th', {}, make('b', { class: `pm-name pm-group${place === 0 ? 0 : name === 'rest' ? 2 : 1}`, text: name }), make('small', { text: ` ${count(rows.length)} ${kind}s ` }),
      ...(kept ? [make('button', { type: 'button', class: 'px-link', 'aria-label': `show ${name} on the map`, text: 'show', onclick: this.e.guard(() => this.e.setSelected(kept)) }), ' ', make('button', { type: 'button', class: 'px-link', 'aria-label': `let go of ${name}`, text: '✕', onclick: this.e.guard(() => this.keep(name, null)) })] : []));
  }

  place(k) { return k === 0 ? 0 : k === this.made.groups.length - 1 ? 2 : 1; }

  share(n, of, k) {
    const part = of ? n / of : 0, bar = make('i');
    bar.style.width = `${100 * part}%`;
    return make('td', {}, make('span', { class: `pm-share pm-group${this.place(k)}` }, bar), `${Math.round(100 * part)}% `, make('small', { text: count(n) }));
  }

  ratio(f) {
    const words = f.lift === Infinity ? 'only here' : f.lift === f.lift ? `× ${f.lift.toFixed(2)}` : '';
    return make('td', { class: Math.abs(f.z) > SURE ? 'pm-sure' : 'pm-unsure' }, words, make('small', { text: ` ${f.low.toFixed(2)} to ${f.high.toFixed(2)}` }));
  }

  means({ measure, percent, cells }) {
    const reach = Math.max(...cells.flatMap(c => [c.low, c.high, c.middle]).filter(Number.isFinite).map(Math.abs), 1e-9), form = x => percent ? `${Math.round(100 * x)}%` : `${x < 0 ? '−' : '+'}${Math.abs(x).toFixed(4)}`, at = x => 50 + 50 * Math.max(-1, Math.min(1, x / reach));
    const cell = (c, k) => {
      if (percent && k < cells.length - 1 && Number.isFinite(c.middle)) {  // a share: from 0 to 1, no zero to lie on either side of
        const fill = make('i');
        fill.style.width = `${100 * c.middle}%`;
        return make('td', {}, make('span', { class: `pm-share pm-group${this.place(k)}` }, fill), form(c.middle), make('small', { text: Number.isFinite(c.low) ? ` ${form(c.low)} to ${form(c.high)}` : '' }));
      }
      if (!Number.isFinite(c.middle)) return make('td', { class: 'px-note', text: 'nothing held out' });
      const sure = c.low > 0 || c.high < 0, ends = Number.isFinite(c.low) ? ` ${form(c.low)} to ${form(c.high)}` : '', whole = Number.isFinite(c.before) ? `, ${c.before.toFixed(4)} → ${c.after.toFixed(4)}, ${count(c.users)} users` : '';
      const spot = (look, left, width) => { const e = make('span', { class: look }); e.style.left = `${left}%`; if (width !== undefined) e.style.width = `${width}%`; return e; };
      const bar = Number.isFinite(c.low) ? [spot('pm-bar', at(c.low), at(c.high) - at(c.low))] : [], said = `${form(c.middle)}${ends}${whole}`;
      return make('td', {}, make('span', { class: 'pm-beam', role: 'img', 'aria-label': said, title: said }, spot('pm-zero', 50), ...bar, spot(sure ? 'pm-dot' : 'pm-dot pm-hollow', at(c.middle))), make('b', { class: sure ? '' : 'pm-plain', text: form(c.middle) }), make('small', { text: ends }));
    };
    return make('tr', {}, make('th', { scope: 'row', text: measure }), ...cells.map(cell));
  }

  csv() {  // everything that was compared, not only what is shown
    const { groups, gains, attributes, words } = this.made, names = groups.map(g => g[0]), lines = [['what', 'value', 'group', 'count', 'of', 'share or mean', 'low', 'high', 'ratio', 'ratio low', 'ratio high', 'z']];
    for (const g of gains) g.cells.forEach((c, k) => lines.push([g.measure, '', names[k] ?? `${names[0]} - ${names[1]}`, c.users ?? '', '', c.middle, c.low, c.high, '', '', '', '']));
    for (const [list, what, value] of [[attributes, f => f.attribute, f => f.value], [words, () => 'word', f => f.word]])
      for (const f of list) f.counts.forEach((n, k) => lines.push([what(f), value(f), names[k], n, f.sizes[k], f.sizes[k] ? n / f.sizes[k] : '', '', '', ...(k ? ['', '', '', ''] : [f.lift, f.low, f.high, f.z])]));
    saveCsv('groups.csv', lines);
  }
}

function saveCsv(name, lines) {  // cells that a spreadsheet would run get an apostrophe
  const q = v => { const t = String(v ?? ''); return `"${(/^[=+\-@\t]/.test(t) && Number.isNaN(Number(t)) ? "'" + t : t).replaceAll('"', '""')}"`; };
  const url = URL.createObjectURL(new Blob([lines.map(l => l.map(q).join(',')).join('\r\n')], { type: 'text/csv' }));
  make('a', { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

async function copyText(text) {  // to the clipboard, in a page from a disk too
  try { await navigator.clipboard.writeText(text); return; } catch { /* not allowed here: the old way */ }
  const box = make('textarea', { 'aria-hidden': true });
  box.value = text; document.body.append(box); box.select();
  const done = document.execCommand('copy');
  box.remove();
  if (!done) throw new Error('this browser does not let a page copy: save as CSV instead');
}
