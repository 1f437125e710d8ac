// The map explorer: one page element that shows maps, cards and distributions of a scene.
// Used twice: as an anywidget in notebooks (export default) and inside the HTML file that save_html writes.
// Everything that comes from data reaches the page through textContent or fillText, never as HTML; the one exception are the pieces of
// views.person, which Python has built of escaped parts. points.js and cohorts.js stand before this.

const OKABE = ['#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9', '#9B6B43', '#7F3C8D'];
const DARK_OKABE = ['#4AA3DF', '#F07F3C', '#2CC59A', '#E39AC2', '#F2B53A', '#8ED0F5', '#C99A70', '#B57FC4'];
const SEQUENCE = ['#440154', '#482878', '#3e4989', '#31688e', '#26828e', '#1f9e89', '#35b779', '#6ece58', '#a5c431'];
const DARK_SEQUENCE = ['#414487', '#355f8d', '#2a788e', '#21918c', '#22a884', '#44bf70', '#7ad151', '#bddf26', '#fde725'];
const AROUND = ['#a63603', '#d95f0e', '#e9a36b', '#c4c4c4', '#7fb3d5', '#2b83ba', '#08519c'];  // lost, as before, gained
const DARK_AROUND = ['#ff7f32', '#e8935a', '#b48a72', '#6a6a6a', '#6f9dbb', '#5bb0e8', '#8fd0ff'];
const GAIN = 'rank change of held-out items';  // as colours.py calls it: above 0 where they moved up
const MANY = 5000;  // points from which texts and vectors are opened when they are asked for

// ---------- small things
function make(tag, attributes = {}, ...children) {
  const e = document.createElement(tag);
  for (const [k, v] of Object.entries(attributes)) {
    if (k === 'text') e.textContent = v;
    else if (k.startsWith('on')) e.addEventListener(k.slice(2), v);
    else if (typeof v === 'boolean' && k.startsWith('aria-')) e.setAttribute(k, String(v));  // false is a state there
    else if (v !== false && v !== null && v !== undefined) e.setAttribute(k, v === true ? '' : v);
  }
  e.append(...children);
  return e;
}

function bytes(text) {
  const raw = atob(text), out = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) out[i] = raw.charCodeAt(i);
  return out;
}
const floats = text => new Float32Array(bytes(text).buffer);
const ints = text => new Int32Array(bytes(text).buffer);
const shorts = text => new Int16Array(bytes(text).buffer);

async function unpack(buffer) {
  const stream = new Blob([buffer]).stream().pipeThrough(new DecompressionStream('gzip'));
  return JSON.parse(await new Response(stream).text());
}

function darkAround(el) {  // is the page behind the element dark?
  for (let e = el; e; e = e.parentElement) {
    const c = getComputedStyle(e).backgroundColor.match(/[\d.]+/g)?.map(Number);
    if (c && (c.length < 4 || c[3] > .5)) return .299 * c[0] + .587 * c[1] + .114 * c[2] < 128;
  }
  return matchMedia('(prefers-color-scheme: dark)').matches;
}

const shown = x => Number.isNaN(x) ? 'no value' : Number.isInteger(x) ? x.toLocaleString('en') : Math.abs(x) >= .001 && Math.abs(x) < 1e4 ? x.toFixed(3) : x.toExponential(2);
const count = n => n.toLocaleString('en');
const rgb = hex => [1, 3, 5].map(k => parseInt(hex.slice(k, k + 2), 16));

function ramp(stops, t) {  // a colour between stops, t from 0 to 1
  const x = t * (stops.length - 1), k = Math.min(Math.floor(x), stops.length - 2), [a, b] = [rgb(stops[k]), rgb(stops[k + 1])];
  return a.map((v, c) => Math.round(v + (b[c] - v) * (x - k)));
}

// ---------- the parts of a scene: each is unpacked once, when it is first asked for
class Parts {
  constructor(packed) { this.packed = packed; this.made = {}; this.opening = {}; }  // name -> () => compressed bytes
  get(name) { return this.made[name]; }
  has(name) { return name in this.packed; }
  names(start) { return Object.keys(this.packed).filter(k => k.startsWith(start)); }

  open(name) {
    if (!this.has(name)) throw new Error(`this page lacks its part ${name}`);
    return this.opening[name] ??= unpack(this.packed[name]()).then(raw => { this.packed[name] = null; return this.made[name] = reading(name)(raw); });
  }
}

function reading(name) {  // how a part is read
  if (name.startsWith('vectors-')) return v => ({ dim: v.dim, unit: v.unit, data: v.unit === 127 ? new Int8Array(bytes(v.data).buffer) : shorts(v.data) });
  if (name === 'words') return w => ({ dim: w.dim, data: new Int8Array(bytes(w.data).buffer), row: new Map(w.words.map((word, k) => [word, k])) });
  if (name === 'lists') return lists => Object.fromEntries(Object.entries(lists).map(([k, v]) => [k, { indptr: ints(v.indptr), indices: ints(v.indices) }]));
  if (name === 'scene') return s => ({ ...s, n: s.n_users + s.n_items, maps: Object.fromEntries(Object.entries(s.maps).map(([k, v]) => [k, places(v)])), columns: s.columns.map(c => ({ ...c, values: c.labels ? shorts(c.values) : floats(c.values) })) });
  return raw => raw;
}

function places(map) {  // 16-bit numbers as places on the plane; the last number means: not shown
  const raw = new Uint16Array(bytes(map.data).buffer), out = new Float32Array(raw.length);
  for (let i = 0; i < raw.length; i++) out[i] = raw[i] === 65535 ? NaN : map.low[i & 1] + map.step * raw[i];
  return out;
}

const isUser = (s, i) => i < s.n_users;
const spelled = name => name.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, '-');
const stem = word => word.replace(/(?<=.{3})(?:ies|ied|ing|es|ed|s|y)$/, '');  // mysteries, mystery: myster

function facet(s, word) {  // is:user, is:gained, genre:comedy, interactions<5: a test of a node; a text: what is wrong; null: a plain word
  const parts = /^([\p{L}\p{N}-]+)(:(?!\/)|[<>]=?)(.+)$/u.exec(word);
  if (!parts) return null;
  const [, name, sign, value] = parts;
  if (name === 'is') {
    if (value === 'user' || value === 'item') return i => isUser(s, i) === (value === 'user');
    const gain = s.columns.find(c => c.name === GAIN);
    if (gain && (value === 'gained' || value === 'lost')) return ordered(i => value === 'gained' ? gain.values[i] > 0 : gain.values[i] < 0, gain, value === 'gained');
    return `is:${value} is unknown: is:user, is:item${gain ? ', is:gained, is:lost' : ''}.`;
  }
  const column = s.columns.find(c => spelled(c.name) === name) ?? s.columns.find(c => spelled(c.name).startsWith(name));
  if (!column) return `nothing is called ${name}: ${s.columns.map(c => spelled(c.name)).join(', ')}.`;
  if (column.labels) return sign === ':' ? i => (column.labels[column.values[i]] ?? '').toLowerCase().includes(value) : `${spelled(column.name)} is no number: ${spelled(column.name)}:${column.labels[0] ?? '…'}`;
  const limit = Number(value);
  if (sign === ':' || Number.isNaN(limit)) return `${spelled(column.name)} is a number: ${spelled(column.name)}>0 or ${spelled(column.name)}<=5`;
  return ordered(i => ({ '<': column.values[i] < limit, '>': column.values[i] > limit, '<=': column.values[i] <= limit, '>=': column.values[i] >= limit })[sign], column, sign[0] === '>');
}
const ordered = (test, column, falling) => Object.assign(test, { key: i => falling ? -column.values[i] : column.values[i], told: i => shown(column.values[i]) });
const rowOf = (list, u) => list ? list.indices.subarray(list.indptr[u], list.indptr[u + 1]) : [];

function cosines({ dim, data, unit }, n, node) {  // cosine of one node, or of a vector, with every node, in the original space
  const out = new Float32Array(n), length = (all, x) => { let sum = 0; for (let k = 0; k < dim; k++) sum += all[x + k] ** 2; return Math.sqrt(sum) || 1; };
  const given = typeof node !== 'number', a = given ? node : data.subarray(node * dim, node * dim + dim), own = given || unit === 127 ? length(a, 0) : unit;
  for (let i = 0, p = 0; i < n; i++) {
    let sum = 0;
    const start = p;
    for (let k = 0; k < dim; k++) sum += a[k] * data[p++];
    out[i] = sum / (own * (unit === 127 ? length(data, start) : unit));
  }
  return out;
}

function pairCosine({ dim, data }, i, j) {
  let sum = 0, a = 0, b = 0;
  for (let k = 0; k < dim; k++) { const x = data[i * dim + k], y = data[j * dim + k]; sum += x * y; a += x * x; b += y * y; }
  return sum / (Math.sqrt(a * b) || 1);
}

function nearest(values, from, to, k, leave) {  // the k largest of a range
  const top = [];
  for (let i = from; i < to; i++) {
    if (i === leave || top.length === k && values[i] <= values[top[k - 1]]) continue;
    let j = top.length;
    while (j > 0 && values[top[j - 1]] < values[i]) j--;
    top.splice(j, 0, i);
    if (top.length > k) top.pop();
  }
  return top;
}

function softmax(c, tau) {
  const top = c.reduce((a, b) => Math.max(a, b), -2);
  let sum = 0;
  const p = Array.from(c, x => { const e = Math.exp((x - top) / tau); sum += e; return e; });
  return p.map(x => x / sum);
}

const entropy = p => -p.reduce((a, x) => a + (x > 0 ? x * Math.log(x) : 0), 0);
const divergence = (p, q) => p.reduce((a, x, i) => a + (x > 0 ? x * Math.log(x / Math.max(q[i], 1e-300)) : 0), 0);
const jensen = (p, q) => { const m = p.map((x, i) => (x + q[i]) / 2); return (divergence(p, m) + divergence(q, m)) / 2; };

// ---------- colours: every point gets a code, every code a colour
const LEVELS = 64;

function colouring(column, dark) {
  const grey = rgb(dark ? '#5f5f5f' : '#b4b4b4'), { values, labels } = column, codes = new Uint8Array(values.length);
  if (labels) {
    const palette = dark ? DARK_OKABE : OKABE, m = Math.min(labels.length, palette.length);
    for (let i = 0; i < values.length; i++) codes[i] = values[i] < 0 || values[i] >= m ? m : values[i];
    return { codes, table: [...palette.slice(0, m).map(rgb), grey], m, grey };
  }
  const known = values.filter(v => v === v).sort(), at = q => known[Math.round(q * (known.length - 1))];
  let low = known.length ? at(.01) : 0, high = known.length ? at(.99) : 1, place;
  if (low === high && known.length) { low = at(0); high = at(1); }
  const around = column.scale === 'around';
  if (around) { high = Math.max(Math.abs(low), Math.abs(high)) || 1; low = -high; }
  const span = high - low || 1;
  if (column.scale === 'log') { const l0 = Math.log1p(low), l = Math.log1p(high) - l0 || 1; place = v => (Math.log1p(v) - l0) / l; }
  else if (column.scale === 'rank') place = v => {  // its place among all values
    let a = 0, b = known.length;
    while (a < b) { const c = (a + b) >> 1; if (known[c] < v) a = c + 1; else b = c; }
    return a / Math.max(known.length - 1, 1);
  };
  else place = v => (v - low) / span;
  for (let i = 0; i < values.length; i++) { const v = values[i]; codes[i] = v !== v ? LEVELS : Math.min(LEVELS - 1, Math.max(0, Math.floor(place(v) * LEVELS))); }
  const stops = around ? (dark ? DARK_AROUND : AROUND) : dark ? DARK_SEQUENCE : SEQUENCE;
  return { codes, table: [...Array(LEVELS).keys()].map(k => ramp(stops, k / (LEVELS - 1))).concat([grey]), stops, low, high, grey, middle: column.scale === 'rank' && known.length ? at(.5) : around ? 0 : null };
}

// ---------- the explorer

class Explorer {
  static made = 0;  // explorers of this page

  constructor(el, parts, hooks = {}) {  // parts: Parts, whose part 'scene' is open
    const s = this.s = parts.get('scene');
    Object.assign(this, { parts, hooks, el, both: 'base' in s.maps && 'reshaped' in s.maps, kinds: new Set(['user', 'item']), only: new Set() });
    this.state = { colour: s.colour ?? s.columns[0]?.name, blend: 'base' in s.maps ? 0 : 1, map: 'base' in s.maps || 'reshaped' in s.maps ? 'recommender' : Object.keys(s.maps)[0],
                   picked: -1, whom: -1, space: undefined, selected: null, side: false };  // whom: the user for whom an item is looked at
    this.trail = [{ node: -1, whom: -1 }]; this.step = 0;  // where somebody has been, and where of it they are
    this.build();
  }

  guard(f, keep = false) {  // an error in a handler is shown, not swallowed, until the next handler (other than hovering) works
    return (...a) => {
      if (!keep) this.alert.hidden = true;
      try { const r = f(...a); r?.catch?.(e => this.fail(e)); return r; } catch (e) { this.fail(e); }
    };
  }

  fail(e) {
    this.alert.textContent = `Something went wrong: ${e?.message ?? e}`;
    this.alert.hidden = false;
    this.hooks.onError?.(String(e?.stack ?? e));
  }

  // --- page parts
  build() {
    const s = this.s, on = f => this.guard(f);
    this.alert = make('div', { class: 'px-alert', role: 'alert', hidden: true });
    this.live = make('div', { class: 'px-note px-live', role: 'status', 'aria-live': 'polite' });
    this.search = make('input', { type: 'search', class: 'px-search', 'aria-label': 'Search users and items by name, id or words of the profile', placeholder: 'Search names, ids, words of profiles …', oninput: on(() => this.find()), onfocus: on(() => this.search.value || this.say(this.waysToSearch())),
      onkeydown: on(e => { if (e.key === 'Enter') { this.panel.querySelector('.px-link')?.click(); this.openPanel(false); } else if (e.key === 'ArrowDown') this.stepInResults(e, 1); }) });
    this.results = make('ul', { class: 'px-results', 'aria-label': 'Search results' });
    this.alike = make('ul', { class: 'px-results px-alike', 'aria-label': 'Close in meaning' });
    this.panel = make('div', { class: 'px-panel', id: `px-panel-${++Explorer.made}`, tabindex: -1, onkeydown: on(e => { const by = { ArrowDown: 1, ArrowUp: -1 }[e.key]; if (by) this.stepInResults(e, by); }) }, this.live, this.results, this.alike);
    this.search.setAttribute('aria-controls', this.panel.id);
    this.backButton = make('button', { type: 'button', class: 'px-back', text: '←', 'aria-disabled': true, onclick: on(() => this.go(-1)) });
    this.found = make('div', { class: 'px-found' }, this.panel);
    this.colour = make('select', { class: 'px-colour', 'aria-label': 'Colour by', onchange: on(() => this.setColour(this.colour.value)) },
      ...s.columns.map(c => make('option', { value: c.name, text: c.name })));
    this.colour.value = this.state.colour;
    const mapNames = [...('base' in s.maps || 'reshaped' in s.maps ? ['recommender'] : []), ...Object.keys(s.maps).filter(k => k !== 'base' && k !== 'reshaped')];
    this.map = make('select', { class: 'px-map', 'aria-label': 'Map', onchange: on(() => this.setMap(this.map.value)) }, ...mapNames.map(k => make('option', { value: k, text: k })));
    this.slider = make('input', { type: 'range', class: 'px-blend', min: 0, max: 100, value: 0, 'aria-label': 'Before (left) to after (right) reshaping', oninput: on(() => this.setBlend(this.slider.value / 100)) });
    this.playButton = make('button', { type: 'button', class: 'px-play', 'aria-label': 'Play the movement', title: 'play the movement', text: '▶', onclick: on(() => this.play(this.state.blend < 1 ? 1 : 0)) });
    this.blendRow = make('span', { class: 'px-blendrow' }, this.playButton, make('button', { type: 'button', class: 'px-before', text: 'before', onclick: on(() => this.play(0)) }),
      this.slider, make('button', { type: 'button', class: 'px-after', text: 'after', onclick: on(() => this.play(1)) }));
    this.sideBox = make('input', { type: 'checkbox', class: 'px-side', onchange: on(() => this.setSide(this.sideBox.checked)) });
    this.clearButton = make('button', { type: 'button', class: 'px-clear', text: 'clear', title: 'selection, picked point, search and filters (Escape)', onclick: on(() => this.clear()) });
    this.arrowBox = make('input', { type: 'checkbox', class: 'px-arrows', checked: true, onchange: on(() => { this.showLegend(); this.drawMarks(); }) });
    this.arrowBox.checked = true;
    const tool = (name, sign, help) => make('button', { type: 'button', class: `px-tool px-${name}`, 'aria-pressed': name === 'move', title: help, 'aria-label': help, text: sign, onclick: on(() => this.setTool(name)) });
    this.tools = { move: tool('move', '✥ move', 'drag to move the map, wheel or pinch to zoom'), lasso: tool('lasso', '◌ lasso', 'draw around points to select them (also: shift and drag)'), box: tool('box', '▭ box', 'drag a box around points to select them') };
    const row = (title, ...c) => make('label', {}, make('span', { text: title }), ...c);
    this.bar = make('div', { class: 'px-bar' }, make('span', { class: 'px-seek' }, this.backButton, this.search), this.found, row('Map ', this.map), ...(this.both ? [this.blendRow] : []), row('Colour ', this.colour),
      ...(this.both ? [make('label', {}, this.arrowBox, make('span', { text: ' trails' }))] : []),
      ...(mapNames.length > 1 ? [make('label', {}, this.sideBox, make('span', { text: ' second map' }))] : []),
      make('span', { class: 'px-tools' }, ...Object.values(this.tools), make('button', { type: 'button', class: 'px-fit', title: 'show the whole map (double click, or 0)', text: '⤢ all', onclick: on(() => this.views().forEach(p => p.fit())) })), this.clearButton);
    this.legend = make('div', { class: 'px-legend', 'aria-label': 'Colours: press one to see it alone' });
    this.tip = make('div', { class: 'px-tip', role: 'tooltip', hidden: true });
    this.plot = make('div', { class: 'px-plot', tabindex: 0, role: 'application', 'aria-label': 'Map: arrow keys walk from the picked point to the next one in that direction, plus and minus zoom, 0 shows all, Escape clears' });
    this.plot2 = make('div', { class: 'px-plot px-plot2', hidden: true });
    this.mapName = make('div', { class: 'px-mapname' }); this.mapName2 = make('div', { class: 'px-mapname' });
    this.plot.append(this.mapName); this.plot2.append(this.mapName2);
    this.caption = make('div', { class: 'px-note px-caption' }); this.key = make('div', { class: 'px-note px-keyline' });
    this.card = make('section', { class: 'px-card', 'aria-label': 'Profile card', 'aria-live': 'polite' });
    this.emptyCard();
    this.dist = make('div', { class: 'px-dist', hidden: true });
    this.distNote = make('div', { class: 'px-note px-distnote' });
    this.picks = make('div', { class: 'px-selection', 'aria-label': 'Selection' });
    this.groups = new Groups(this);
    this.honest = make('details', { class: 'px-honest' }, make('summary', { text: 'How far to trust these maps' }), make('pre', { text: s.honesty }));
    const root = make('div', { class: 'px-root' }, this.bar,
      make('div', { class: 'px-main' }, make('div', { class: 'px-maps' }, this.legend, make('div', { class: 'px-plots' }, this.plot, this.plot2, this.alert), this.caption, this.key, this.tip), this.card),
      make('div', { class: 'px-lower' }, make('div', { class: 'px-distbox' }, this.dist, this.distNote), this.picks), this.groups.box, this.honest);
    this.root = root; root.explorer = this;
    this.el.replaceChildren(root);
    if (s.namer) { this.names = make('section', { class: 'px-names', role: 'dialog', 'aria-label': `Names by ${s.namer}`, tabindex: -1, hidden: true }); this.plot.parentNode.append(this.names); }
    root.addEventListener('keydown', on(e => { if (e.key !== 'Escape') return this.walkBack(e); if (this.names && !this.names.hidden) this.closeNames(); else this.clear(); }));
    root.addEventListener('focusin', e => this.openPanel(this.panel.contains(e.target) || e.target === this.search));
    root.addEventListener('focusout', e => { if (!root.contains(e.relatedTarget)) this.openPanel(false); });
    this.plot.addEventListener('keydown', on(e => this.walk(e)));
    this.theme();
    this.turn();
    this.points = this.newMap(this.plot);
    this.setTool('move'); this.recolour(); this.showMap(); this.showLegend(); this.showStep();
    this.say(this.note());
    this.ready = this.openAll();
    this.media = matchMedia('(prefers-color-scheme: dark)');
    this.onTheme = this.guard(() => this.retheme());
    this.media.addEventListener('change', this.onTheme);
    this.watcher = new MutationObserver(this.onTheme);
    this.watcher.observe(document.body, { attributes: true, attributeFilter: ['data-jp-theme-light', 'class', 'data-theme'] });
  }

  async openAll() {  // a small scene is unpacked whole; of a large one first what hovering needs, the rest when it is asked for
    const wanted = this.s.n <= MANY ? this.parts.names('') : ['names', 'lists'];
    if (this.s.n > MANY) await new Promise(r => requestAnimationFrame(() => setTimeout(r)));
    await Promise.all(wanted.filter(k => this.parts.has(k)).map(k => this.parts.open(k)));
  }

  name(i) { return this.parts.get('names')?.names[i] ?? `${isUser(this.s, i) ? 'user' : 'item'} #${isUser(this.s, i) ? i : i - this.s.n_users}`; }
  id(i) { return this.parts.get('names')?.ids[i] ?? ''; }
  block(i) { return `texts-${Math.floor(i / this.s.block)}`; }
  text(i) { return this.parts.get(this.block(i))?.[i % this.s.block] ?? null; }

  say(text) { this.live.textContent = text ?? ''; this.live.title = text ?? ''; }

  // --- results lie over the map, so that nothing moves; they are open while the search or one of them has the focus
  openPanel(open) { this.found.classList.toggle('px-open', open); }

  stepInResults(e, by) {
    const links = [...this.panel.querySelectorAll('.px-link')], k = links.indexOf(e.target) + by;
    e.preventDefault();
    (links[k] ?? (k < 0 ? this.search : null))?.focus();
  }

  note() {
    if (this.points.graphics) return '';
    const every = this.points.every, n = this.s.n;
    const drawn = every > 1 ? `${count(Math.ceil(n / every))} of ${count(n)} points are drawn (every ${every}th); search, cards and neighbours cover all` : 'points are drawn on a 2D canvas, a little slower';
    return `This browser has no WebGL: ${drawn}.`;
  }

  newMap(div) {
    const safe = f => this.guard(f, true), made = new PointMap(div, this.s.maps, this.s.n_users, {
      hover: safe((i, e, label) => this.hover(i, e, label)), label: this.guard(label => this.showName(label)), pick: this.guard(i => this.pick(i, true)), select: this.guard(ids => this.setSelected(ids)),
      lost: safe(() => this.say(this.note())), error: e => this.fail(e),
    }, { webgl: this.hooks.webgl ?? true });
    made.marks = (ink, map, x, y) => this.paintMarks(ink, map, x, y);
    made.names = map => this.namesInSight(map);
    made.tool = this.points?.tool ?? 'move';
    this.dress(made);
    return made;
  }

  dress(map) {
    const n = this.s.n, size = n > 5e5 ? 1.6 : n > 1e5 ? 2.2 : n > 3e4 ? 3 : n > 1e4 ? 4 : n > 2000 ? 6 : n > 500 ? 8 : 10, paper = this.dark ? '#181818' : '#ffffff';
    map.look = { size, rim: rgb(paper).map(v => v / 255), shade: this.dark ? [150, 170, 205] : [90, 105, 140], ink: this.ink, paper };
  }

  views() { return [this.points, this.points2].filter(Boolean); }

  turn() {  // maps have no up and down: turn them so that they fill the box
    const box = this.plot.getBoundingClientRect(), wide = box.width > 50 ? box.width / (box.height || 520) : 1.5, s = this.s;
    const first = s.maps.base ?? s.maps.reshaped ?? Object.values(s.maps)[0], step = Math.max(1, Math.floor(s.n / 3000)), spots = [];
    for (let i = 0; i < s.n; i += step) if (first[2 * i] === first[2 * i]) spots.push([first[2 * i], first[2 * i + 1]]);
    let best = 0, most = -1;
    for (let k = 0; k < 36; k++) {
      const c = Math.cos(k * Math.PI / 36), d = Math.sin(k * Math.PI / 36), reach = f => { const v = spots.map(f).sort((a, b) => a - b), q = t => v[Math.round(t * (v.length - 1))]; return Math.max(q(.995) - q(.005), 1e-9); };
      const scale = spots.length ? Math.min(wide / reach(p => c * p[0] - d * p[1]), 1 / reach(p => d * p[0] + c * p[1])) : 0;
      if (scale > most) { most = scale; best = k * Math.PI / 36; }
    }
    const c = Math.cos(best), d = Math.sin(best), turned = (x, y) => [c * x - d * y, d * x + c * y];
    for (const m of Object.values(s.maps)) for (let i = 0; i < m.length; i += 2) [m[i], m[i + 1]] = turned(m[i], m[i + 1]);
    for (const labels of Object.values(s.labels)) for (const l of labels) [l.x, l.y] = turned(l.x, l.y);
  }

  theme() {
    this.dark = darkAround(this.el);
    this.root.classList.toggle('px-dark', this.dark);
    this.ink = this.dark ? '#e6e6e6' : '#1c1c1c';
    this.colours = null;
  }

  retheme() {
    if (darkAround(this.el) === this.dark) return;
    this.theme();
    for (const p of this.views()) this.dress(p);
    this.recolour(); this.showLegend();
    if (this.state.picked >= 0) return this.showDistribution(this.person() >= 0 ? this.person() : this.state.picked);
  }

  column(name = this.state.colour) { return this.s.columns.find(c => c.name === name); }

  palette() {
    if (!this.colours || this.colours.name !== this.state.colour) this.colours = { name: this.state.colour, ...colouring(this.column(), this.dark) };
    return this.colours;
  }

  recolour() {  // colour and opacity of every point: filtered ones are gone, unselected ones are faint
    const { codes, table } = this.palette(), s = this.s, n = s.n, rgba = this.rgba ??= new Uint8Array(4 * n), all = new Uint32Array(rgba.buffer);
    const usual = n > 2e5 ? 120 : n > 2e4 ? 150 : n > 3000 ? 185 : 225, chosen = this.state.selected, faint = n > 2e4 ? 14 : 30;
    const word = (alpha) => table.map(([r, g, b]) => (alpha << 24 | b << 16 | g << 8 | r) >>> 0), plain = word(chosen ? faint : usual), strong = word(240);
    const [users, items] = ['user', 'item'].map(k => this.kinds.has(k)), only = this.only, some = only.size > 0;
    for (let i = 0; i < n; i++) all[i] = !(i < s.n_users ? users : items) || some && !only.has(codes[i]) ? 0 : plain[codes[i]];
    if (chosen) for (const i of chosen) if (all[i]) all[i] = strong[codes[i]];
    for (const p of this.views()) p.recolour(rgba);
  }

  // --- which map
  showMap() {
    const { map, blend } = this.state, m = this.s.maps;
    const put = (p, name) => name === 'recommender' ? p.show(m.base ? 'base' : 'reshaped', m.reshaped ? 'reshaped' : 'base', this.both ? blend : 0) : p.show(name, name, 0);
    put(this.points, map); this.points.labels = this.labels(map);
    if (this.points2) { put(this.points2, this.other()); this.points2.labels = this.labels(this.other()); }
    this.caption.textContent = this.captionOf(map);
    if (this.nearSpace !== this.space()) {  // lines and lists of neighbours follow the map
      this.nearSpace = this.space(); this.near = null;
      if (this.state.picked >= 0) this.showCard(this.state.picked);
    }
    this.mapName.textContent = this.nameOf(map); this.mapName2.textContent = this.nameOf(this.other());
  }

  namesInSight(map) {  // near enough, points tell their names
    if (map.zoom < 4 || !this.parts.get('names')) return [];
    const { width, height } = map.view, [x0, y0] = map.plane(0, height), [x1, y1] = map.plane(width, 0), near = map.index().inside([[x0, y0], [x1, y0], [x1, y1], [x0, y1]]);
    if (near.length > 120) return [];
    near.sort((a, b) => isUser(this.s, a) - isUser(this.s, b));  // titles say more than ids
    const { x, y } = map.places(), short = t => t.length > 26 ? t.slice(0, 25) + '…' : t;
    return Array.from(near, i => ({ x: x[i], y: y[i], text: short(this.name(i)), level: 3, beside: true, from: 0, until: 1e9 }));
  }

  labels(map) { return this.s.labels[map === 'recommender' ? (this.state.blend < .5 && this.s.labels.base ? 'base' : 'reshaped') : map] ?? []; }

  nameOf(map) {
    const t = this.state.blend;
    return map + (map !== 'recommender' ? '' : !this.both ? ` (${'base' in this.s.maps ? 'before' : 'after'} reshaping)` : t === 0 ? ' before reshaping' : t === 1 ? ' after reshaping' : ` at ${Math.round(100 * t)} % of the way`);
  }

  captionOf(map) {
    const moved = map === 'recommender' && this.both ? `. ${this.s.moved ?? ''}` : '';
    return `${this.nameOf(map)}: no axes, no unit, read who is near whom${moved}`;
  }

  other() { return [...this.map.options].map(o => o.value).find(k => k !== this.state.map) ?? this.state.map; }

  // --- what a person does
  setTool(name) {
    for (const [k, b] of Object.entries(this.tools)) b.setAttribute('aria-pressed', k === name);
    for (const p of this.views()) { p.tool = name; p.box.classList.toggle('px-drawing', name !== 'move'); }
  }

  setBlend(t, told = false) {
    this.state.blend = t;
    this.slider.value = 100 * t;
    this.showMap();
    if (!told) this.hooks.onState?.('blend', t);
  }

  play(to) {  // the same points move
    const from = this.state.blend, frames = matchMedia('(prefers-reduced-motion: reduce)').matches ? 1 : 40, run = this.playing = {};
    let k = 0;
    const step = this.guard(() => {
      if (this.playing !== run) return;
      const t = ++k / frames, s = t * t * (3 - 2 * t);
      this.setBlend(k >= frames ? to : from + (to - from) * s, k < frames);
      if (k < frames) requestAnimationFrame(step);
    }, true);
    if (from !== to) step();
  }

  setMap(map, told = false) {
    this.state.map = map; this.map.value = map;
    this.blendRow.hidden = !this.both || (map !== 'recommender' && !this.state.side);
    this.showMap();
    for (const p of this.views()) p.fit();
    if (!told) this.hooks.onState?.('map', map);
  }

  setSide(on) {
    this.state.side = on; this.sideBox.checked = on; this.plot2.hidden = !on;
    this.points2?.destroy(); this.points2 = null;
    if (on) { this.points2 = this.newMap(this.plot2); this.recolour(); this.setTool(this.points.tool); }
    this.blendRow.hidden = !this.both || (this.state.map !== 'recommender' && !on);
    this.showMap();
  }

  setColour(name, told = false) {
    if (!this.column(name)) throw new Error(`there is no column ${name}`);
    this.state.colour = name; this.colour.value = name; this.colours = null; this.only.clear();
    this.recolour();
    this.showLegend();
    if (this.state.picked >= 0) this.showCard(this.state.picked);
    if (!told) this.hooks.onState?.('colour', name);
  }

  filter(code) {  // see one colour alone, or some; none left: all
    if (this.only.has(code)) this.only.delete(code); else this.only.add(code);
    this.recolour(); this.showLegend();
    const left = this.rgba.reduce((sum, v, k) => sum + ((k & 3) === 3 && v > 0), 0);
    this.say(`${count(left)} of ${count(this.s.n)} points are shown.`);
  }

  filterKind(kind) {
    if (this.kinds.has(kind)) this.kinds.delete(kind); else this.kinds.add(kind);
    if (!this.kinds.size) this.kinds = new Set(['user', 'item'].filter(k => k !== kind));
    this.recolour(); this.showLegend();
  }

  showLegend() {
    const c = this.column(), p = this.palette(), css = ([r, g, b]) => `background:rgb(${r},${g},${b})`, parts = [], told = [];
    const chip = (pressed, press, ...inside) => make('button', { type: 'button', class: 'px-chip', 'aria-pressed': pressed, title: 'show or hide', onclick: this.guard(press) }, ...inside);
    for (const [kind, sign] of [['user', '● users'], ['item', '◆ items']]) parts.push(chip(this.kinds.has(kind), () => this.filterKind(kind), make('span', { text: sign })));
    const colour = (code, text) => chip(!this.only.size || this.only.has(code), () => this.filter(code), make('span', { class: 'px-swatch', style: css(p.table[code]) }), make('bdi', { text }));
    if (c.labels) {
      c.labels.slice(0, p.m).forEach((l, k) => parts.push(colour(k, l)));
      if (p.codes.includes(p.m)) parts.push(colour(p.m, c.labels.length > p.m ? 'others or none' : 'no value'));
    } else {
      parts.push(make('span', { text: shown(p.low) }), make('span', { class: 'px-ramp', style: `background:linear-gradient(90deg,${p.stops.join(',')})` }), make('span', { text: shown(p.high) }));
      if (c.scale === 'rank') told.push(make('span', { text: `coloured by rank, middle ${shown(p.middle)}` }));
      if (c.scale === 'log') told.push(make('span', { text: 'log scale' }));
      if (p.codes.includes(LEVELS)) parts.push(colour(LEVELS, 'no value'));
    }
    if (c.help) told.push(make('span', { text: `${c.name}: ${c.help}` }));
    if (this.both && this.arrowBox.checked && this.movers().length) told.push(make('span', { class: 'px-trailkey', text: `trails on the way to after: the ${this.movers().length} whose neighbours changed most` }));
    if (this.s.namer) parts.push(make('button', { type: 'button', class: 'px-chip px-namer', 'aria-haspopup': 'dialog', title: 'which names, and from which texts', onclick: this.guard(() => this.listNames()) }, make('span', { text: 'names by ' }), make('bdi', { text: this.s.namer })));
    this.legend.replaceChildren(...parts); this.key.replaceChildren(...told);
  }

  // --- names that a language model gave to regions, and the texts that it saw
  openNames(title, ...inside) {
    if (this.names.hidden) this.cameFrom = this.root.contains(document.activeElement) ? document.activeElement : this.plot;
    this.names.replaceChildren(make('button', { type: 'button', class: 'px-shut', 'aria-label': 'Close', text: '✕', onclick: this.guard(() => this.closeNames()) }), make('h3', {}, make('bdi', { text: title })), ...inside);
    this.names.hidden = false; this.names.scrollTop = 0; this.tip.hidden = true;
    this.names.focus({ preventScroll: true });
  }

  closeNames() {
    this.names.hidden = true;
    (this.cameFrom?.isConnected ? this.cameFrom : this.plot).focus({ preventScroll: true });
  }

  listNames() {  // those that this zoom has, for who does not point at the map
    const lists = this.views().map(p => p.labels.filter(l => l.seen !== undefined && p.zoom >= l.from * .999 && p.zoom < l.until));
    const button = label => make('li', {}, make('button', { type: 'button', class: 'px-link', onclick: this.guard(() => this.showName(label)) }, make('bdi', { text: label.text })));
    this.openNames(`Names by ${this.s.namer}`, make('p', { class: 'px-note', text: lists.some(l => l.length) ? 'Written in italics on the map, at this zoom. Other labels are words that tell a region from the others.' : 'None at this zoom: labels here are words that tell a region from the others.' }), make('ul', {}, ...lists.flat().map(button)));
  }

  async showName(label) {
    const { words, texts } = (await this.parts.open('seen'))[label.seen];
    const go = node => { const a = this.link(node); a.addEventListener('click', this.guard(() => this.views().forEach(p => p.fly(node, 1)))); return a; };
    const rest = t => { const title = `${this.name(t.node)}: `; return t.text.startsWith(title) ? t.text.slice(title.length) : t.text; };  // the link says the title
    const list = beside => make('ul', {}, ...texts.filter(t => t.beside === beside).map(t => make('li', {}, go(t.node), make('div', { class: 'px-seen', dir: 'auto', text: rest(t) }))));
    const [x] = this.points.screen(label.x, label.y);
    this.names.classList.toggle('px-left', x > this.points.view.width / 2);  // beside the name, not over it
    this.openNames(label.text, make('p', { class: 'px-note', text: `A name by ${this.s.namer}. Of this region it saw the words that tell it from the others (${words}) and the texts below, no more.` }), list(false),
      ...(texts.some(t => t.beside) ? [make('h4', { text: 'From beside it, for contrast' }), list(true)] : []));
  }

  hover(i, e, label) {
    this.plot.classList.toggle('px-met', i >= 0 || Boolean(label));
    if (label) { this.hovered = -1; this.tip.replaceChildren(make('b', {}, make('bdi', { text: label.text })), make('div', { text: `named by ${this.s.namer}; click for the texts that it saw` })); this.putTip(e); return; }
    if (i < 0) { this.tip.hidden = true; this.hovered = -1; return; }
    const c = this.column(), v = c.labels ? c.labels[c.values[i]] ?? 'no value' : shown(c.values[i]), text = this.text(i) ?? '';
    if (this.hovered !== i) this.tip.replaceChildren(make('b', {}, make('span', { class: 'px-kind', text: isUser(this.s, i) ? '● ' : '◆ ' }), make('bdi', { text: this.name(i) })), make('div', { text: `${c.name}: ${v}` }), make('div', { class: 'px-tiptext', text: text.length > 160 ? text.slice(0, 160) + ' …' : text }));
    if (this.text(i) === null && this.parts.has(this.block(i))) this.parts.open(this.block(i)).then(() => { if (this.hovered === i) { this.hovered = -1; this.hover(i, e); } });
    this.hovered = i;
    this.putTip(e);
  }

  putTip(e) {
    const box = this.root.getBoundingClientRect(), x = e.clientX - box.left, y = e.clientY - box.top;
    this.tip.hidden = false;
    this.tip.style.left = `${Math.max(0, Math.min(x + 14, box.width - 290))}px`; this.tip.style.top = `${y + 14}px`;
  }

  waysToSearch() {
    const labelled = this.s.columns.find(c => c.labels && c.labels.length && spelled(c.name) !== 'kind'), number = this.s.columns.find(c => !c.labels);
    return ['Words of names and profiles (what is close in meaning follows), an id; also is:user, is:item', ...(labelled ? [`${spelled(labelled.name)}:${spelled(labelled.labels[0])}`] : []), ...(number ? [`${spelled(number.name)}>0`] : [])].join(', ') + '.';
  }

  async find() {
    const q = this.search.value.trim().toLowerCase(), parts = q.split(/\s+/).filter(Boolean).map(word => [word, facet(this.s, word)]);
    const words = parts.filter(p => p[1] === null).map(p => p[0]), tests = parts.map(p => p[1]).filter(t => typeof t === 'function');
    const wrong = parts.find(p => typeof p[1] === 'string');
    if (wrong || !q) { this.noResults(wrong ? wrong[1] : ''); this.setSelected(null, false, false); return; }
    const blocks = this.parts.names('texts-');
    if (words.length && !blocks.every(k => this.parts.get(k))) {
      this.say('Opening the profiles to search in them …');
      await Promise.all(blocks.map(k => this.parts.open(k)));
      if (this.search.value.trim().toLowerCase() !== q) return;
    }
    if (words.length) this.hay ??= Array.from({ length: this.s.n }, (_, i) => `${this.name(i)}\n${this.id(i)}\n${this.text(i)}`.toLowerCase());
    const kinds = [[], [], [], []], phrase = words.join(' '), stems = words.map(stem);  // this id, these words as they stand, somewhere, only their stems
    for (let i = 0; i < this.s.n; i++) {
      if (!tests.every(test => test(i))) continue;
      if (!words.length) { kinds[0].push(i); continue; }
      const text = this.hay[i];
      if (stems.every(w => text.includes(w))) kinds[this.id(i).toLowerCase() === phrase ? 0 : text.includes(phrase) ? 1 : words.every(w => text.includes(w)) ? 2 : 3].push(i);
    }
    const order = tests.find(test => test.key), list = nodes => nodes.map(i => make('li', {}, this.link(i, order?.told(i))));
    if (order) for (const kind of kinds) kind.sort((a, b) => order.key(a) - order.key(b));
    const hits = kinds.flat(), told = `${count(hits.length)} of ${count(this.s.n)} match${hits.length > 20 ? '; the first 20 are listed' : ''}.`;
    this.noResults(told);
    this.results.replaceChildren(...list(hits.slice(0, 20)));
    this.setSelected(Int32Array.from(hits).sort(), false, false);
    const alike = hits.length < 20 && words.length ? await this.closeInMeaning(words, tests, new Set(hits)) : [];
    if (!alike.length || this.search.value.trim().toLowerCase() !== q) return;
    this.say(`${told} Close in meaning, as profiles use these words, in italics.`);
    this.alike.replaceChildren(...list(alike));
    if (!hits.length) this.setSelected(Int32Array.from(alike).sort(), false, false);
  }

  async closeInMeaning(words, tests, known, most = 10) {  // nodes nearest to the places of the words, without those that hold them
    if (!this.parts.has('words')) return [];
    const [table, space] = await Promise.all(['words', 'vectors-profiles'].map(k => this.parts.open(k)));
    const rows = (words.join(' ').match(/\p{L}{3,}/gu) ?? []).map(word => table.row.get(stem(word))).filter(k => k !== undefined), sum = new Float32Array(table.dim);
    for (const k of rows) for (let j = 0; j < table.dim; j++) sum[j] += table.data[k * table.dim + j];
    if (!rows.length) return [];
    const c = cosines(space, this.s.n, sum);
    for (let i = 0; i < this.s.n; i++) if (known.has(i) || !tests.every(test => test(i))) c[i] = -1;
    return nearest(c, 0, this.s.n, most, -1).filter(i => c[i] > 0);
  }

  noResults(said = '') { this.results.replaceChildren(); this.alike.replaceChildren(); this.say(said); }

  clear() {
    this.search.value = ''; this.noResults();
    this.only.clear(); this.kinds = new Set(['user', 'item']);
    this.setSelected(null); this.showLegend();
    if (this.state.picked >= 0) this.pick(-1, true);
  }

  link(i, more = '') {
    return make('button', { type: 'button', class: 'px-link', 'data-node': i, onclick: this.guard(e => this.follow(i, e.currentTarget)) }, make('span', { class: 'px-kind', text: isUser(this.s, i) ? '● ' : '◆ ' }),
      make('bdi', { text: this.name(i) }), ...(more ? [make('span', { class: 'px-more', text: ' ' + more })] : []));
  }

  emptyCard() { this.card.replaceChildren(make('p', { class: 'px-note', text: 'Click a point, or search: its profile, history and neighbours appear here. Draw around points (lasso or box) to select them.' })); }

  follow(i, from) {  // a link: an item of somebody's lists is looked at for them
    const results = this.panel.contains(from), done = this.pick(i, true, true, from.closest('.px-card, .px-distbox') ? this.person() : -1);
    if (results && this.root.clientWidth < 700) this.plot.focus({ preventScroll: true });  // there the results lie over the whole map
    return done;
  }

  person() { const { picked, whom } = this.state; return picked >= 0 && isUser(this.s, picked) ? picked : whom; }

  pick(i, own, fly = false, whom = -1) {  // own: somebody did it here; whom: a user for whom an item is looked at
    const node = i >= 0 && i < this.s.n ? i : -1, user = node >= this.s.n_users && whom < this.s.n_users ? whom : -1;
    const before = this.trail[this.step], moved = before.node !== node || before.whom !== user;
    if (moved) {
      const over = own === 'walk' && before.walked;  // a walk is one step
      this.leave();
      this.step += !over; this.trail.length = this.step;
      this.trail.push({ node, whom: user, walked: own === 'walk' });
      if (own) this.hooks.onStep?.(node, user, this.step, over);
    }
    const done = this.show(node, fly, user);
    if (own) this.hooks.onPick?.(node);
    return done;
  }

  show(i, fly, whom) {  // without a step
    const active = this.root.getRootNode().activeElement, inside = this.card.contains(active) || this.dist.contains(active);
    this.showStep();
    this.state.whom = whom; this.near = null;
    if (this.state.picked !== i && this.card.scrollTop) this.card.scrollTop = 0;
    this.state.picked = i;
    if (i < 0) { this.drawMarks(); this.emptyCard(); this.dist.hidden = true; this.distNote.textContent = ''; return; }
    this.showCard(i);
    if (inside) this.card.querySelector('.px-backto, h3').focus();  // what was pressed is gone
    if (fly) this.bring(i);
    // the card is painted before the slower drawings begin; a later pick makes them needless
    return new Promise(done => requestAnimationFrame(() => setTimeout(this.guard(async () => { if (this.state.picked === i) { await this.open(i); this.drawMarks(); await this.showDistribution(this.person() >= 0 ? this.person() : i); } done(); }, true), 30)));
  }

  bring(i) {  // a point that cannot be seen is brought to the middle
    const panel = this.panel.getBoundingClientRect(), over = this.found.classList.contains('px-open') && this.panel.querySelector('.px-link');
    for (const p of this.views()) {
      const { x, y } = p.places(), [sx, sy] = p.screen(x[i], y[i]), [left, top] = p.spot(i), hidden = over && left < panel.right + 12 && top < panel.bottom + 12;
      if (hidden || !(sx > 20 && sy > 20 && sx < p.view.width - 20 && sy < p.view.height - 20)) p.fly(i, 1);
    }
  }

  // --- the way back: steps as in a browser, which takes them itself where the page has an address
  start(i, whom) { this.trail = [{ node: i, whom }]; this.step = 0; return this.show(i, true, whom); }

  go(by) {
    if (!this.trail[this.step + by] || this.hooks.onGo?.(by)) return;
    const done = this.stand(this.step + by);
    this.hooks.onPick?.(this.state.picked);
    return done;
  }

  stand(k) {  // at a step that was taken before: the card as it was left
    this.leave();
    this.step = k;
    const { node, whom, folds, scrolled, focused } = this.trail[k], done = this.show(node, true, whom);
    this.card.querySelectorAll('details').forEach((d, n) => { if (folds?.[n] !== undefined) d.open = folds[n]; });
    this.card.scrollTop = scrolled ?? 0;
    if (focused >= 0) this.stops()[focused]?.focus({ preventScroll: true });
    return done;
  }

  leave() {
    const at = this.trail[this.step], active = this.root.getRootNode().activeElement;
    Object.assign(at, { folds: [...this.card.querySelectorAll('details')].map(d => d.open), scrolled: this.card.scrollTop, focused: this.stops().indexOf(active) });
  }

  stops() { return [...this.card.querySelectorAll('button, summary, select, [role=link]')]; }

  walkBack(e) {
    const by = e.altKey && !e.ctrlKey && !e.metaKey && e.target !== this.search ? { ArrowLeft: -1, ArrowRight: 1 }[e.key] : 0;
    if (!by) return;
    if (this.trail[this.step + by] || !this.hooks.onGo) e.preventDefault();  // a notebook is not left
    return this.go(by);
  }

  showStep() {
    const to = this.trail[this.step - 1], name = to && (to.node < 0 ? 'nobody picked' : this.name(to.node));
    this.backButton.setAttribute('aria-disabled', String(!to));
    this.backButton.title = to ? `back to ${name} (Alt and left arrow)` : 'nothing to go back to';
    this.backButton.setAttribute('aria-label', to ? `back to ${name}` : 'back: nothing to go back to');
  }

  async open(i) {  // what a card of a large scene needs beside the first picture
    const wanted = [this.block(i), 'names', 'lists', 'people', ...this.parts.names('vectors-')].filter(k => this.parts.has(k) && !this.parts.get(k));
    if (!wanted.length) return;
    await Promise.all(wanted.map(k => this.parts.open(k)));
    if (this.state.picked === i) this.showCard(i);
  }

  space() {  // whose neighbours are meant: that of the map, until somebody chooses another
    const seen = this.state.map !== 'recommender' ? this.state.map : this.state.blend < .5 && this.parts.has('vectors-base') ? 'base' : 'reshaped';
    return this.state.space ?? (this.parts.has(`vectors-${seen}`) ? seen : this.parts.names('vectors-')[0]?.slice(8));
  }

  vectors(space = this.space()) { return space === undefined ? undefined : this.parts.get(`vectors-${space}`); }
  lists() { return this.parts.get('lists') ?? {}; }

  showCard(i) {
    const s = this.s, user = isUser(s, i), parts = [], lists = this.lists();
    const whom = !user && this.state.whom >= 0 ? this.state.whom : -1, ranks = this.parts.get('people')?.places?.[i] ?? {};
    if (whom >= 0) parts.push(this.backTo(whom));
    parts.push(make('h3', { tabindex: -1 }, make('bdi', { text: this.name(i) })), make('div', { class: 'px-note', text: this.name(i).endsWith(this.id(i)) ? (user ? '● user' : '◆ item') : `${user ? '● user' : '◆ item'} ${this.id(i)}` }));
    if (whom >= 0) parts.push(this.whomOf(whom, i));
    const text = this.text(i);
    parts.push(make('blockquote', { class: 'px-profile', dir: 'auto', text: text === null && this.parts.has(this.block(i)) ? '…' : text || 'no profile' }));
    const facts = s.columns.map(c => [c.name, c.labels ? c.labels[c.values[i]] : Number.isFinite(c.values[i]) ? shown(c.values[i]) : undefined, c.help]).filter(f => f[1] !== undefined);
    parts.push(make('details', { open: facts.length <= 8 }, make('summary', { text: 'Facts' }), make('dl', {}, ...facts.flatMap(f => [make('dt', { text: f[0], title: f[2] ?? '' }), make('dd', {}, make('bdi', { text: f[1] }))]))));
    const group = (title, nodes, most = 12) => { if (nodes.length) parts.push(make('details', { open: true }, make('summary', { text: `${title} (${nodes.length})` }), make('ul', {}, ...nodes.slice(0, most).map(([j, m]) => make('li', {}, this.link(j, m)))),
      ...(nodes.length > most ? [make('div', { class: 'px-note', text: `and ${nodes.length - most} more` })] : []))); };
    if (user && this.parts.get('people')) parts.splice(3, 0, this.personOf(i));
    if (user) for (const [k, title] of [['train', 'History'], ['test', 'Held out'], ['added', 'Added interactions']]) group(title, [...rowOf(lists[k], i)].map(j => [j + s.n_users, k === 'test' && ranks[j] ? this.ranksTold(ranks[j], true) : '']));
    if (this.vectors()) {
      const c = cosines(this.vectors(), s.n, i), near = (a, b) => nearest(c, a, b, 6, i).map(j => [j, c[j].toFixed(2)]);
      const menu = make('select', { class: 'px-space', 'aria-label': 'Space of the neighbours', onchange: this.guard(e => { this.state.space = e.target.value; this.near = null; this.showCard(i); this.drawMarks(); }) },
        ...this.parts.names('vectors-').map(k => k.slice(8)).map(k => make('option', { value: k, text: k, selected: k === this.space() })));
      parts.push(make('label', { class: 'px-note' }, make('span', { text: 'Nearest by cosine in the original space of ' }), menu));
      group('Nearest users', near(0, s.n_users)); group('Nearest items', near(s.n_users, s.n));
    }
    this.card.replaceChildren(...parts);
  }

  personOf(i) {  // claims, the lists before and after, and why: made by views.person when the scene was made
    const people = this.parts.get('people'), html = people.rows[i];
    if (!html) return make('div', { class: 'px-note', text: `The claims and lists of this user are not in this page, which holds those of ${count(people.users)} of ${count(this.s.n_users)} users: Workbench(run) in a notebook shows everybody's.` });
    const box = make('div', { class: 'px-person' });
    box.innerHTML = html;
    return this.linked(box);
  }

  backTo(u) {
    return make('div', { class: 'px-backrow' }, make('button', { type: 'button', class: 'px-backto', onclick: this.guard(() => this.trail[this.step - 1]?.node === u ? this.go(-1) : this.pick(u, true, true)) }, make('span', { text: '← back to ' }), make('bdi', { text: this.name(u) })));
  }

  ranksTold(ranks, short = false) {  // places on the lists: before → after, then those of other recommenders
    const { sides } = this.parts.get('people'), at = name => sides.includes(name) ? count(ranks[sides.indexOf(name)]) : null, two = [at('before'), at('after')];
    if (short) return two.filter(Boolean).join(' → ');
    return [...['before', 'after'].map((name, k) => two[k] && `${two[k]} ${name}`).filter(Boolean), ...sides.flatMap((name, k) => name === 'before' || name === 'after' ? [] : [`${count(ranks[k])} ${name}`])].join(', ');
  }

  whomOf(u, i) {  // an item as it stands with somebody: places on the lists, held out or not, why
    const j = i - this.s.n_users, people = this.parts.get('people'), html = people?.rows[u], ranks = people?.places?.[u]?.[j], told = [];
    const has = k => [...rowOf(this.lists()[k], u)].includes(j), known = has('train');
    if (has('test')) told.push('★ held out: a later choice, to be found');
    else if (!known) told.push('not held out');
    if (known) told.push('in the training history, so on no list');
    if (has('added')) told.push('an added interaction');
    if (ranks) told.push(`place ${this.ranksTold(ranks)}`);
    else if (html && !known) told.push('on none of the lists above place 10');
    else if (people && !html && !known) told.push(`places are known here for ${count(people.users)} of ${count(this.s.n_users)} users`);
    const near = this.parts.names('vectors-').filter(k => this.parts.get(k)).map(k => k.slice(8)).map(k => `${{ base: 'before', reshaped: 'after' }[k] ?? k} ${pairCosine(this.vectors(k), u, i).toFixed(2)}`);
    const box = make('div', { class: 'px-whom' }, make('b', {}, make('span', { text: 'Looked at for ' }), make('bdi', { text: this.name(u) })), make('ul', {}, ...told.map(text => make('li', { text })), ...(near.length ? [make('li', { text: `cosine: ${near.join(', ')}` })] : [])));
    const whole = make('template'), mine = e => Number(e.querySelector('.pm-item')?.dataset.item) === j;
    whole.innerHTML = html ?? '';
    const why = [...whole.content.querySelectorAll('.pm-why > ol > li')].filter(mine).flatMap(e => [...e.querySelectorAll(':scope > div')]), fell = [...whole.content.querySelectorAll('.pm-fallen > p')].filter(mine);
    box.append(...fell, ...(why.length ? [make('b', { text: `Why it is on the list${people.sides.includes('after') ? ' after reshaping' : ''}` }), ...why] : []));
    return this.linked(box);
  }

  linked(box) {  // items in HTML of views.person lead to their cards
    for (const e of box.querySelectorAll('.pm-item')) {
      const go = this.guard(() => this.pick(this.s.n_users + Number(e.dataset.item), true, true, this.person()));
      e.setAttribute('role', 'link'); e.tabIndex = 0;
      e.addEventListener('click', go);
      e.addEventListener('keydown', k => { if (k.key === 'Enter') { k.preventDefault(); go(); } });  // the focus goes on to a button, which Enter would press
    }
    return box;
  }

  neighbours(i) {
    if (!this.vectors()) return [];
    const c = cosines(this.vectors(), this.s.n, i);
    return [...nearest(c, 0, this.s.n_users, 6, i), ...nearest(c, this.s.n_users, this.s.n, 6, i)];
  }

  // --- marks: ring, lines to neighbours, trails of movement
  drawMarks() {
    const i = this.state.picked;
    if (i >= 0 && !this.near) this.near = this.neighbours(i);
    for (const p of this.views()) p.wake();
  }

  paintMarks(ink, map, x, y) {  // what labels have to leave free: [left, top, right, bottom] of each
    const i = this.state.picked, taken = [[0, 0, 230, 26]], at = j => map.screen(x[j], y[j]);  // the name of the map stands there
    if (map.from !== map.to && map.blend > 0 && this.arrowBox.checked) this.paintTrails(ink, map);
    if (i < 0 || x[i] !== x[i]) return taken;
    const [sx, sy] = at(i);
    ink.strokeStyle = this.ink; ink.lineWidth = 1; ink.globalAlpha = .55;
    ink.beginPath();
    for (const j of this.near ?? []) { const [a, b] = at(j); if (a === a) { ink.moveTo(sx, sy); ink.lineTo(a, b); } }
    ink.stroke(); ink.globalAlpha = 1;
    for (const [wide, colour] of [[6, map.look.paper], [2.5, this.ink]]) { ink.beginPath(); ink.arc(sx, sy, 9, 0, 7); ink.lineWidth = wide; ink.strokeStyle = colour; ink.stroke(); }
    taken.push([sx - 12, sy - 12, sx + 12, sy + 12]);
    return taken;
  }

  paintTrails(ink, map) {  // from where they were to where they are: thin where they come from
    const from = this.s.maps[map.from], { x, y } = map.places(), who = this.state.selected && this.state.selected.length <= 150 ? this.state.selected : this.movers();
    ink.strokeStyle = ink.fillStyle = this.dark ? '#ffd166' : '#8a4b00';
    for (const j of who) {
      if (x[j] !== x[j] || !this.rgba[4 * j + 3]) continue;
      const [a, b] = map.screen(from[2 * j], from[2 * j + 1]), [c, d] = map.screen(x[j], y[j]);
      for (let k = 0; k < 6; k++) { ink.globalAlpha = .12 + .11 * k; ink.lineWidth = .6 + .35 * k; ink.beginPath(); ink.moveTo(a + (c - a) * k / 6, b + (d - b) * k / 6); ink.lineTo(a + (c - a) * (k + 1) / 6, b + (d - b) * (k + 1) / 6); ink.stroke(); }
      ink.globalAlpha = 1; ink.beginPath(); ink.arc(c, d, 3, 0, 7); ink.fill();
    }
    ink.globalAlpha = 1;
  }

  movers() { return this.s.movers ?? []; }  // the 30 whose neighbours changed most, chosen when the scene was made

  setSelected(ids, told = false, list = true) {
    this.state.selected = ids && ids.length ? ids : null;
    this.recolour();
    this.showSelection(list);
    this.guard(() => this.groups.show(), true)();
    if (!told) this.hooks.onSelect?.(this.state.selected ?? new Int32Array(0));
  }

  showSelection(list = true) {
    const ids = this.state.selected;
    if (!ids) { this.picks.replaceChildren(); return; }
    const users = ids.filter(i => isUser(this.s, i)).length, button = (look, text, press) => make('button', { type: 'button', class: look, text, onclick: this.guard(press) });
    const rows = list ? [...ids.slice(0, 100)].map(i => make('li', {}, this.link(i))) : [];
    this.picks.replaceChildren(make('h3', { text: `Selected: ${count(users)} user${users === 1 ? '' : 's'}, ${count(ids.length - users)} item${ids.length - users === 1 ? '' : 's'}` }),
      make('div', { class: 'px-actions' }, button('px-keep px-keepA', 'keep as A', () => this.groups.keep('A', ids)), button('px-keep px-keepB', 'keep as B', () => this.groups.keep('B', ids)),
        button('px-csv', 'save as CSV', () => this.csv(ids)), button('px-copy', 'copy ids', () => this.copyIds(ids))), make('ul', {}, ...rows),
      ...(list && ids.length > 100 ? [make('div', { class: 'px-note', text: `and ${count(ids.length - 100)} more, all in the CSV` })] : []));
  }

  async copyIds(ids) {
    await this.parts.open('names');
    await copyText(Array.from(ids, i => this.id(i)).join('\n'));
    this.say(`${count(ids.length)} ids are copied, one a line.`);
  }

  async csv(ids) {
    await Promise.all([...new Set(Array.from(ids, i => this.block(i)))].filter(k => this.parts.has(k)).map(k => this.parts.open(k)));
    const lines = [['kind', 'id', 'name', ...this.s.columns.map(c => c.name), 'profile']];
    for (const i of ids) lines.push([isUser(this.s, i) ? 'user' : 'item', this.id(i), this.name(i), ...this.s.columns.map(c => c.labels ? c.labels[c.values[i]] : Number.isFinite(c.values[i]) ? c.values[i] : ''), this.text(i)]);
    saveCsv('selection.csv', lines);
  }

  walk(e) {  // arrow keys: the nearest point in that direction
    const zoom = { '+': 1.5, '=': 1.5, '-': 1 / 1.5 }[e.key], { view } = this.points;
    if (zoom) { e.preventDefault(); this.points.zoomAt(view.width / 2, view.height / 2, zoom); return; }
    if (e.key === '0') { this.points.fit(); return; }
    const way = !e.altKey && { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[e.key];
    if (!way) return;
    e.preventDefault();
    const { x, y } = this.points.places(), here = j => x[j] === x[j] && this.rgba[4 * j + 3] > 0, p = this.state.picked;
    let best = -1, least = Infinity;
    const begun = p >= 0 && here(p), [a, b] = begun ? [x[p], y[p]] : [view.cx, view.cy];  // at first: what is nearest to the middle
    for (let j = 0; j < this.s.n; j++) {
      const dx = x[j] - a, dy = y[j] - b, d = dx * dx + dy * dy;
      if (d < least && j !== p && here(j) && (!begun || dx * way[0] + dy * way[1] > .7 * Math.sqrt(d))) { least = d; best = j; }
    }
    if (best >= 0) this.pick(best, 'walk', true);
  }

  // --- one user's distributions: the items whose probability changed most
  async showDistribution(i) {
    const s = this.s, spaces = ['profiles', 'base', 'reshaped'].filter(k => this.vectors(k));
    if (!isUser(s, i) || !spaces.length) { this.dist.hidden = true; this.distNote.textContent = isUser(s, i) ? '' : 'Pick a user to see its distributions over items.'; return; }
    const tau = k => k === 'profiles' ? s.settings.teacher_tau ?? s.settings.tau : s.settings.tau;
    const made = Object.fromEntries(spaces.map(k => [k, softmax(cosines(this.vectors(k), s.n, i).subarray(s.n_users), tau(k))]));
    this.dist.hidden = false;
    this.dist.replaceChildren(...this.dumbbells(i, made));
    const say = [];
    if (made.profiles) {
      const sharp = 1 - entropy(made.profiles) / Math.log(s.n_items);
      say.push(`Profile sharpness ${sharp.toFixed(3)}, published confidence weight ${Math.min(1, Math.max(s.settings.floor, sharp)).toFixed(3)} (floor ${s.settings.floor}).`);
      for (const [k, word] of [['base', 'before'], ['reshaped', 'after']]) if (made[k]) say.push(`${word}: KL ${divergence(made.profiles, made[k]).toFixed(4)}, JS ${jensen(made.profiles, made[k]).toFixed(4)} nats.`);
    }
    this.distNote.textContent = say.join(' ');
  }

  dumbbells(i, made) {  // a line an item: before, after, and where the profile would have it
    const s = this.s, a = made.base ?? made.profiles, b = made.reshaped ?? made.base ?? made.profiles, lists = this.lists();
    const change = a.map((x, j) => Math.abs(b[j] - x)), most = a === b ? nearest(a, 0, s.n_items, 20, -1) : nearest(change, 0, s.n_items, 20, -1);
    most.sort((x, y) => b[y] - a[y] - (b[x] - a[x]));
    const all = most.flatMap(j => Object.values(made).map(p => p[j])), low = Math.log(Math.min(...all)), span = Math.log(Math.max(...all)) - low || 1, place = p => 2 + 96 * (Math.log(p) - low) / span;
    const has = (k, j) => [...rowOf(lists[k], i)].includes(j), marks = [['train', 'history', '▪'], ['test', 'held out', '★'], ['added', 'added', '+']];
    const words = { profiles: 'profile', base: 'before', reshaped: 'after' }, percent = p => `${(100 * p).toPrecision(2)} %`, told = j => Object.entries(made).map(([k, p]) => `${words[k]} ${percent(p[j])}`).join(', ');
    const line = j => make('li', { title: told(j), 'aria-current': j + s.n_users === this.state.picked && 'true' }, make('span', { class: 'px-title' }, this.link(j + s.n_users, marks.filter(([k]) => has(k, j)).map(m => m[2]).join(' '))),
      make('span', { class: 'px-beam', role: 'img', 'aria-label': told(j) },
        make('span', { class: `px-rod ${b[j] > a[j] ? 'px-up' : 'px-down'}`, style: `left:${Math.min(place(a[j]), place(b[j]))}%;width:${Math.abs(place(a[j]) - place(b[j]))}%` }),
        ...[['profiles', 'px-p'], ['base', 'px-q'], ['reshaped', 'px-r']].filter(([k]) => made[k]).map(([k, look]) => make('span', { class: `px-bell ${look}`, style: `left:${place(made[k][j])}%` }))), make('small', { text: a === b ? percent(b[j]) : `${percent(a[j])} → ${percent(b[j])}` }));
    const key = [['profiles', 'px-p', 'profile'], ['base', 'px-q', 'before'], ['reshaped', 'px-r', 'after']].filter(([k]) => made[k]).map(([, look, word]) => make('span', { class: 'px-key' }, make('span', { class: `px-bell ${look}` }), make('span', { text: word })));
    const title = a === b ? 'The 20 items with the highest probability' : 'The 20 items whose probability changed most, risen first';
    const of = i === this.state.picked ? [] : [make('span', { class: 'px-more', text: ' of ' }), make('bdi', { class: 'px-more', text: this.name(i) })];  // an item is looked at for somebody
    return [make('h3', {}, make('span', { text: title }), ...of), make('div', { class: 'px-note px-keys' }, ...key, make('span', { text: `log scale, ${(100 * Math.exp(low)).toPrecision(2)} % to ${(100 * Math.exp(low + span)).toPrecision(2)} %; ${marks.map(m => `${m[2]} ${m[1]}`).join(', ')}` })), make('ul', { class: 'px-bells' }, ...most.map(line))];
  }

  destroy() {
    this.media.removeEventListener('change', this.onTheme); this.watcher.disconnect();
    for (const p of this.views()) p.destroy();
  }
}

async function explore(el, packed, hooks) {  // an explorer whose first picture is drawn
  const parts = new Parts(packed);
  await parts.open('scene');
  const made = new Explorer(el, parts, hooks);
  await made.ready;
  return made;
}

// ---------- in a notebook (anywidget)
function render({ model, el }) {
  const note = make('div', { class: 'px-note', role: 'status', text: 'Loading the map …' });
  el.replaceChildren(note);
  let explorer = null, quiet = false, made = Promise.resolve();
  const send = (kind, more = {}, buffers) => model.send({ kind, ...more }, undefined, buffers);
  const set = (k, v) => { quiet = true; model.set(k, v); model.save_changes(); quiet = false; };
  const problem = e => { el.prepend(make('div', { class: 'px-alert', role: 'alert', text: `The map cannot be shown: ${e?.message ?? e}` })); send('error', { text: String(e?.stack ?? e) }); };
  const hooks = { onPick: i => set('picked', i), onSelect: ids => send('select', {}, [ids.buffer]), onKeep: (name, ids) => send('keep', { name }, [ids.buffer]), onState: (k, v) => set(k, v), onError: text => send('error', { text }) };
  const show = async (names, buffers) => {
    if (model.get('svg')) hooks.webgl = false;
    explorer?.destroy();
    explorer = await explore(el, Object.fromEntries(names.map((name, k) => [name, () => buffers[k]])), hooks);
    const colour = model.get('colour');
    if (colour && explorer.column(colour)) explorer.setColour(colour, true);
    if (model.get('map')) explorer.setMap(model.get('map'), true);
    explorer.setBlend(model.get('blend'), true);
    explorer.start(model.get('picked'), -1);
    el.dataset.ready = 'yes';
  };
  const onMessage = (m, buffers) => {
    if (m.kind === 'parts') made = show(m.names, buffers).catch(problem);
    const nodes = () => new Int32Array(buffers[0].buffer.slice(buffers[0].byteOffset, buffers[0].byteOffset + buffers[0].byteLength));
    if (m.kind === 'select') made.then(() => explorer?.setSelected(nodes(), true));
    if (m.kind === 'keep') made.then(() => explorer?.groups.keep(m.name, nodes(), true)).catch(problem);
  };
  model.on('msg:custom', onMessage);
  const react = { picked: v => explorer?.pick(v, false, true), colour: v => v && explorer?.setColour(v, true), blend: v => explorer?.setBlend(v, true), map: v => v && explorer?.setMap(v, true) };
  for (const [k, f] of Object.entries(react)) model.on(`change:${k}`, () => { if (!quiet) { try { f(model.get(k)); } catch (e) { explorer ? explorer.fail(e) : problem(e); } } });
  send('ready');
  return () => { model.off('msg:custom', onMessage); explorer?.destroy(); };
}

// ---------- in a file (save_html): <div class="px-mount" data-scene="1">, and its parts in <script data-scene="1" data-part="...">
function addressed() {  // what is looked at stands in the address, so that a link leads there, and each step in the browser's history: hooks, and what to do at first
  let at = new URLSearchParams(location.hash.slice(1)), waiting = 0, explorer = null;
  const put = (f, step) => { clearTimeout(waiting); try { history[f]({ step }, '', `#${at}`); } catch { /* a page in a frame may not */ } };
  const set = (k, v) => { if (v === '' || v === null) at.delete(k); else at.set(k, v); };
  const note = (k, v) => { set(k, v); clearTimeout(waiting); waiting = setTimeout(() => put('replaceState', explorer?.step ?? 0), 300); };
  const whole = k => /^\d{1,9}$/.test(at.get(k) ?? '') ? Number(at.get(k)) : -1;
  const asked = ({ s }) => { const node = whole('node') < s.n ? whole('node') : -1, whom = whole('for'); return { node, whom: node >= s.n_users && whom < s.n_users ? whom : -1 }; };
  const begin = async e => {
    const blend = Number.parseFloat(at.get('blend'));
    explorer = e;
    if (e.column(at.get('colour'))) e.setColour(at.get('colour'), true);
    if ([...e.map.options].some(o => o.value === at.get('map'))) e.setMap(at.get('map'), true);
    if (blend >= 0 && blend <= 1) e.setBlend(blend, true);
    const { node, whom } = asked(e);
    if (node >= 0) e.start(node, whom);
    try { history.replaceState({ step: 0 }, ''); } catch { /* a page in a frame may not */ }
    addEventListener('popstate', e.guard(() => {  // only where somebody was; colour and movement stay as they are now
      if (/^#[^=]+$/.test(location.hash)) return;  // a heading of the page
      const was = at;
      at = new URLSearchParams(location.hash.slice(1));
      const { node, whom } = asked(e), k = history.state?.step, to = e.trail[k];
      at = was; set('node', node < 0 ? null : node); set('for', whom < 0 ? null : whom);
      const known = to?.node === node && to.whom === whom;
      put('replaceState', known ? k : 0);
      return known ? e.stand(k) : e.start(node, whom);
    }));
  };
  const onStep = (node, whom, step, over) => { set('node', node < 0 ? null : node); set('for', whom < 0 ? null : whom); put(over ? 'replaceState' : 'pushState', step); };
  const onGo = by => history.state?.step === explorer.step && (history.go(by), true);
  return [{ onStep, onGo, onState: (k, v) => note(k, typeof v === 'number' ? Math.round(v * 1000) / 1000 : v) }, begin];
}

// ---------- figures beside a map: a point that stands for somebody leads to them
function nodeOf(e, point) {  // customdata of a plotly point: a node number where the trace says so, or ['user' or 'item', row or id]; -1 for none
  const { s } = e, given = point.customdata, whole = (v, n) => Number.isInteger(v) && v >= 0 && v < n;
  if (point.data?.meta === 'nodes') return whole(given, s.n) ? given : -1;
  if (!Array.isArray(given) || given.length !== 2 || !['user', 'item'].includes(given[0])) return -1;
  const [start, n] = given[0] === 'user' ? [0, s.n_users] : [s.n_users, s.n_items];
  if (typeof given[1] !== 'string') return whole(given[1], n) ? start + given[1] : -1;
  const ids = e.parts.get('names')?.ids.slice(start, start + n) ?? [];
  return ids.includes(given[1]) ? start + ids.indexOf(given[1]) : -1;
}

function linkFigures(explorers) {
  for (const figure of document.querySelectorAll('.js-plotly-plot')) {
    const leads = t => t.meta === 'nodes' || ['user', 'item'].includes(t.customdata?.[0]?.[0]);
    const e = explorers.findLast(x => x.el.compareDocumentPosition(figure) & Node.DOCUMENT_POSITION_FOLLOWING) ?? explorers[0];
    if (!e || !figure.on || !figure.data?.some(leads)) continue;
    const reach = point => point ? nodeOf(e, point) : -1, finger = look => { for (const layer of figure.querySelectorAll('.drag.nsewdrag')) layer.style.cursor = look; };
    figure.on('plotly_hover', event => finger(reach(event.points[0]) >= 0 ? 'pointer' : ''));
    figure.on('plotly_unhover', () => finger(''));
    figure.on('plotly_click', e.guard(event => {
      const i = reach(event.points[0]);
      if (i < 0) return;
      const done = e.pick(i, true, true);
      const beside = e.card.getBoundingClientRect().top < e.plot.getBoundingClientRect().bottom;
      (beside ? e.plot : e.card).scrollIntoView({ block: 'center' });
      e.card.querySelector('h3').focus({ preventScroll: true });
      return done;
    }));
    figure.parentElement.after(make('p', { class: 'px-lead', text: `Click a dot: who it is opens on the map.${e.hooks.onGo ? ' The way back of the browser leads here again.' : ''}` }));
  }
}

async function mountAll() {
  const explorers = [];
  for (const [k, el] of document.querySelectorAll('.px-mount').entries()) {
    try {
      const packed = {};
      for (const part of document.querySelectorAll('script[data-part]')) if (part.dataset.scene === el.dataset.scene) packed[part.dataset.part] = () => bytes(part.textContent.trim());
      const [hooks, begin] = k ? [{}, () => {}] : addressed();  // the first map of a page has the address
      el.explorer = await explore(el, packed, hooks);
      await begin(el.explorer);
      explorers.push(el.explorer);
      el.dataset.ready = 'yes';
    } catch (e) { el.replaceChildren(make('div', { class: 'px-alert', role: 'alert', text: `The map cannot be shown: ${e?.message ?? e}` })); }
  }
  linkFigures(explorers);
}

export { Explorer, explore, mountAll };
export default { render };
