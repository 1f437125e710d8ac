// The map explorer: one page element that shows maps, cards and distributions of a scene.
// Used twice: as an anywidget in notebooks (export default) and inside the HTML file that save_html writes.
// Everything that comes from data reaches the page through textContent, never as HTML.

const OKABE = ['#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9', '#F0E442', '#7F3C8D'];
const CIVIDIS = ['#00224e', '#123570', '#3b496c', '#575d6d', '#707173', '#8a8678', '#a59c74', '#c3b369', '#e1cc55', '#fee838'];
const VIRIDIS_DARK = ['#31688e', '#2a788e', '#21918c', '#22a884', '#35b779', '#54c568', '#7ad151', '#a5db36', '#d2e21b', '#fde725'];

// ---------- small things
function make(tag, attributes = {}, ...children) {
  const e = document.createElement(tag);
  for (const [k, v] of Object.entries(attributes)) {
    if (k === 'text') e.textContent = v;
    else if (k.startsWith('on')) e.addEventListener(k.slice(2), v);
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

function hasWebGL() {
  try {
    const gl = document.createElement('canvas').getContext('webgl');
    const yes = !!gl;
    gl?.getExtension('WEBGL_lose_context')?.loseContext();
    return yes;
  } catch { return false; }
}

function darkAround(el) {  // is the page behind the element dark?
  for (let e = el; e; e = e.parentElement) {
    const c = getComputedStyle(e).backgroundColor.match(/[\d.]+/g)?.map(Number);
    if (c && (c.length < 4 || c[3] > .5)) return .299 * c[0] + .587 * c[1] + .114 * c[2] < 128;
  }
  return matchMedia('(prefers-color-scheme: dark)').matches;
}

const shown = x => Number.isNaN(x) ? 'no value' : Number.isInteger(x) ? x.toLocaleString('en') : Math.abs(x) >= .001 && Math.abs(x) < 1e4 ? x.toFixed(3) : x.toExponential(2);

// ---------- the scene as typed arrays
function read(s) {
  const n = s.n_users + s.n_items, maps = {}, vectors = {}, lists = {};
  for (const [k, v] of Object.entries(s.maps)) maps[k] = floats(v);
  for (const [k, v] of Object.entries(s.vectors)) vectors[k] = { dim: v.dim, data: shorts(v.data) };
  for (const [k, v] of Object.entries(s.lists)) lists[k] = { indptr: ints(v.indptr), indices: ints(v.indices) };
  const columns = s.columns.map(c => ({ ...c, values: c.labels ? shorts(c.values) : floats(c.values) }));
  return { ...s, n, maps, vectors, lists, columns, search: s.names.map((name, i) => `${name}\n${s.ids[i]}\n${s.texts[i]}`.toLowerCase()) };
}

const isUser = (s, i) => i < s.n_users;
const rowOf = (s, list, u) => list ? list.indices.subarray(list.indptr[u], list.indptr[u + 1]) : [];

function cosines(s, space, node) {  // cosine of one node with every node, in the original space
  const { dim, data } = s.vectors[space], out = new Float32Array(s.n), a = data.subarray(node * dim, node * dim + dim);
  for (let i = 0, p = 0; i < s.n; i++) {
    let sum = 0;
    for (let k = 0; k < dim; k++) sum += a[k] * data[p++];
    out[i] = sum / (32767 * 32767);
  }
  return out;
}

function nearest(values, from, to, k, leave) {
  const ids = [];
  for (let i = from; i < to; i++) if (i !== leave) ids.push(i);
  return ids.sort((a, b) => values[b] - values[a]).slice(0, k);
}

function softmax(s, space, user, tau) {
  const c = cosines(s, space, user).subarray(s.n_users), top = c.reduce((a, b) => Math.max(a, b), -2);
  let sum = 0;
  const p = Array.from(c, x => { const e = Math.exp((x - top) / tau); sum += e; return e; });
  return p.map(x => x / sum);
}

const entropy = p => -p.reduce((a, x) => a + (x > 0 ? x * Math.log(x) : 0), 0);
const divergence = (p, q) => p.reduce((a, x, i) => a + (x > 0 ? x * Math.log(x / Math.max(q[i], 1e-300)) : 0), 0);
const jensen = (p, q) => { const m = p.map((x, i) => (x + q[i]) / 2); return (divergence(p, m) + divergence(q, m)) / 2; };

// ---------- colours: every point gets a number in [0, 1], or -1 for "no value"
function colouring(column, dark) {
  const grey = dark ? '#5a5a5a' : '#bdbdbd';
  if (column.labels) {
    const m = Math.min(column.labels.length, 8), stops = [[0, grey], [.5 / (m + 1), grey]];
    const pick = k => k < 8 ? OKABE[k] : grey;
    for (let k = 0; k < m; k++) stops.push([(k + .5) / (m + 1), pick(k)], [Math.min(1, (k + 1.5) / (m + 1)), pick(k)]);
    stops.push([1, m ? pick(m - 1) : grey]);
    const numbers = Float32Array.from(column.values, c => c < 0 || c >= m ? 0 : c + 1);
    return { numbers, cmin: 0, cmax: m + 1, scale: stops, of: i => column.values[i] < 0 || column.values[i] >= m ? grey : pick(column.values[i]), grey, m };
  }
  const sorted = Float32Array.from(column.values).filter(Number.isFinite).sort();
  const low = sorted[Math.floor(sorted.length * .01)] ?? 0, high = sorted[Math.ceil(sorted.length * .99) - 1] ?? 1, span = high - low || 1;
  const palette = dark ? VIRIDIS_DARK : CIVIDIS;
  const stops = [[0, grey], [.025, grey], [.0251, palette[0]], ...palette.map((c, k) => [(k / (palette.length - 1) + .05) / 1.05, c])];
  const numbers = Float32Array.from(column.values, v => Number.isFinite(v) ? Math.min(1, Math.max(0, (v - low) / span)) : -.05);
  return { numbers, cmin: -.05, cmax: 1, scale: stops, low, high, grey };
}

// ---------- the explorer

class Explorer {
  constructor(el, scene, Plotly, hooks = {}) {
    this.s = read(scene); this.Plotly = Plotly; this.hooks = hooks; this.el = el;
    this.gl = hooks.webgl ?? hasWebGL();
    this.state = { colour: this.s.columns[0]?.name, blend: 'base' in this.s.maps ? 0 : 1, map: 'base' in this.s.maps || 'reshaped' in this.s.maps ? 'recommender' : Object.keys(this.s.maps)[0],
                   picked: -1, space: Object.keys(this.s.vectors)[0], selected: null, side: false };
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
    this.live = make('div', { class: 'px-note', role: 'status', 'aria-live': 'polite' });
    this.search = make('input', { type: 'search', class: 'px-search', 'aria-label': 'Search users and items by name, id or profile text', placeholder: 'Search name, id or profile …', oninput: on(() => this.find()) });
    this.results = make('ul', { class: 'px-results', 'aria-label': 'Search results' });
    this.colour = make('select', { class: 'px-colour', 'aria-label': 'Colour by', onchange: on(() => this.setColour(this.colour.value)) },
      ...s.columns.map(c => make('option', { value: c.name, text: c.name })));
    const mapNames = [...('base' in s.maps || 'reshaped' in s.maps ? ['recommender'] : []), ...Object.keys(s.maps).filter(k => k !== 'base' && k !== 'reshaped')];
    this.map = make('select', { class: 'px-map', 'aria-label': 'Map', onchange: on(() => this.setMap(this.map.value)) }, ...mapNames.map(k => make('option', { value: k, text: k })));
    this.slider = make('input', { type: 'range', class: 'px-blend', min: 0, max: 100, value: 0, 'aria-label': 'Before (left) to after (right) reshaping', oninput: on(() => this.setBlend(this.slider.value / 100)) });
    const both = 'base' in s.maps && 'reshaped' in s.maps;
    this.blendRow = make('span', { class: 'px-blendrow', hidden: !both }, make('button', { type: 'button', class: 'px-before', text: 'before', onclick: on(() => this.play(0)) }),
      this.slider, make('button', { type: 'button', class: 'px-after', text: 'after', onclick: on(() => this.play(1)) }));
    this.sideBox = make('input', { type: 'checkbox', class: 'px-side', onchange: on(() => this.setSide(this.sideBox.checked)) });
    this.clearButton = make('button', { type: 'button', class: 'px-clear', text: 'clear selection', onclick: on(() => this.setSelected(null)) });
    this.arrowBox = make('input', { type: 'checkbox', class: 'px-arrows', onchange: on(() => this.drawMarks()) });
    const row = (title, ...c) => make('label', {}, make('span', { text: title }), ...c);
    this.bar = make('div', { class: 'px-bar' }, this.search, row('Map ', this.map), this.blendRow, row('Colour ', this.colour),
      ...(both ? [make('label', {}, this.arrowBox, make('span', { text: ' movement of selected' }))] : []),
      ...(mapNames.length > 1 ? [make('label', {}, this.sideBox, make('span', { text: ' second map' }))] : []), this.clearButton);
    this.legend = make('div', { class: 'px-legend', 'aria-label': 'Colours' });
    this.tip = make('div', { class: 'px-tip', role: 'tooltip', hidden: true });
    this.plot = make('div', { class: 'px-plot', tabindex: 0, role: 'application', 'aria-label': 'Map: arrow keys walk from the picked point to the next one in that direction' });
    this.plot2 = make('div', { class: 'px-plot px-plot2', hidden: true });
    this.card = make('section', { class: 'px-card', 'aria-label': 'Profile card', 'aria-live': 'polite' }, make('p', { class: 'px-note', text: 'Click a point, or search: its profile, history and neighbours appear here. Draw around points (lasso or box) to select them.' }));
    this.dist = make('div', { class: 'px-dist', hidden: true });
    this.distNote = make('div', { class: 'px-note px-distnote' });
    this.picks = make('div', { class: 'px-selection', 'aria-label': 'Selection' });
    this.honest = make('details', { class: 'px-honest' }, make('summary', { text: 'How far to trust these maps' }), make('pre', { text: s.honesty }));
    const root = make('div', { class: 'px-root' }, this.alert, this.bar, this.results, this.live,
      make('div', { class: 'px-main' }, make('div', { class: 'px-maps' }, this.legend, make('div', { class: 'px-plots' }, this.plot, this.plot2), this.tip), this.card),
      make('div', { class: 'px-lower' }, make('div', { class: 'px-distbox' }, this.dist, this.distNote), this.picks), this.honest);
    this.root = root;
    this.el.replaceChildren(root);
    this.plot.addEventListener('keydown', on(e => this.walk(e)));
    this.drawn(); this.theme();
    this.ready = this.draw(this.plot, () => this.state.map).then(() => { this.drawn1 = true; this.showLegend(); if (!this.gl) this.say(this.note); });
    this.media = matchMedia('(prefers-color-scheme: dark)');
    this.onTheme = this.guard(() => this.retheme());
    this.media.addEventListener('change', this.onTheme);
    this.watcher = new MutationObserver(this.onTheme);
    this.watcher.observe(document.body, { attributes: true, attributeFilter: ['data-jp-theme-light', 'class', 'data-theme'] });
    this.sizer = new ResizeObserver(() => { for (const p of [this.plot, this.plot2, this.dist]) if (p.data && !p.hidden && p.offsetWidth) this.Plotly.Plots.resize(p); });
    this.sizer.observe(root);
  }

  say(text) { this.live.textContent = text ?? ''; }

  theme() {
    this.dark = darkAround(this.el);
    this.root.classList.toggle('px-dark', this.dark);
    this.ink = this.dark ? '#ddd' : '#222';
    this.colours = null;
  }

  retheme() {
    if (darkAround(this.el) === this.dark) return;
    this.theme();
    for (const p of [this.plot, this.plot2]) if (p.data) { this.Plotly.relayout(p, { 'font.color': this.ink }); this.paint(p); }
    this.drawMarks(); this.showLegend();
    if (this.state.picked >= 0) this.showDistribution(this.state.picked);
  }

  // --- which nodes are drawn (without WebGL: an even share, said so)
  drawn() {
    const s = this.s, first = Object.values(s.maps)[0], keep = [[], []];
    for (let i = 0; i < s.n; i++) if (Number.isFinite(first[2 * i])) keep[isUser(s, i) ? 0 : 1].push(i);
    this.note = null;
    const total = keep[0].length + keep[1].length, most = 5000;
    if (!this.gl && total > most) {
      const step = Math.ceil(total / most);
      for (const k of [0, 1]) keep[k] = keep[k].filter((_, j) => j % step === 0);
      this.note = `This browser has no WebGL: ${(keep[0].length + keep[1].length).toLocaleString('en')} of ${total.toLocaleString('en')} points are drawn (every ${step}th); search, cards and neighbours cover all.`;
    } else if (!this.gl) this.note = 'This browser has no WebGL: points are drawn as SVG, a little slower.';
    this.ids = keep.map(k => Int32Array.from(k));
    this.place = new Int32Array(s.n).fill(-1);
    for (const k of this.ids) k.forEach((node, j) => { this.place[node] = j; });
  }

  position(map, i) {  // [x, y] of a node on a map, in between for the recommender's two
    const m = this.s.maps;
    if (map !== 'recommender') return [m[map][2 * i], m[map][2 * i + 1]];
    const a = m.base ?? m.reshaped, b = m.reshaped ?? m.base, t = this.state.blend;
    return [a[2 * i] * (1 - t) + b[2 * i] * t, a[2 * i + 1] * (1 - t) + b[2 * i + 1] * t];
  }

  coordinates(map) {
    const x = [], y = [];
    for (const ids of this.ids) {
      const xs = new Float32Array(ids.length), ys = new Float32Array(ids.length);
      ids.forEach((node, j) => { [xs[j], ys[j]] = this.position(map, node); });
      x.push(xs); y.push(ys);
    }
    return { x, y };
  }

  column(name = this.state.colour) { return this.s.columns.find(c => c.name === name); }

  palette() {
    if (!this.colours || this.colours.name !== this.state.colour) this.colours = { name: this.state.colour, ...colouring(this.column(), this.dark) };
    return this.colours;
  }

  markers() {
    const p = this.palette();
    return this.ids.map(ids => Float32Array.from(ids, i => p.numbers[i]));
  }

  size() { const n = this.ids[0].length + this.ids[1].length; return n > 10000 ? 4 : n > 2000 ? 5 : n > 500 ? 7 : 9; }

  async draw(div, which) {
    const s = this.s, map = which(), { x, y } = this.coordinates(map), colours = this.markers(), p = this.palette(), size = this.size();
    const type = this.gl ? 'scattergl' : 'scatter', many = this.ids[0].length + this.ids[1].length > 5000;
    const traces = ['users', 'items'].map((name, k) => ({
      type, mode: 'markers', name, x: x[k], y: y[k], hoverinfo: 'none', showlegend: false,
      marker: { color: colours[k], colorscale: p.scale, cmin: p.cmin, cmax: p.cmax, size: k ? size + 1 : size, symbol: k ? 'diamond' : 'circle', opacity: many ? .6 : .8, line: { width: 0 } },
      selected: { marker: { opacity: 1 } }, unselected: { marker: { opacity: .12 } },
    }));
    const layout = {
      autosize: true, height: 520, margin: { l: 8, r: 8, t: 8, b: 28 }, paper_bgcolor: 'rgba(0,0,0,0)', plot_bgcolor: 'rgba(0,0,0,0)', font: { color: this.ink }, hovermode: 'closest', dragmode: 'pan',
      xaxis: { showgrid: false, zeroline: false, showticklabels: false, title: { text: this.caption(map), font: { size: 11 } } },
      yaxis: { showgrid: false, zeroline: false, showticklabels: false, scaleanchor: 'x' }, hoverdistance: 12, uirevision: map,
    };
    const config = { displaylogo: false, showSendToCloud: false, responsive: false, scrollZoom: true, modeBarButtonsToAdd: ['lasso2d', 'select2d'], modeBarButtonsToRemove: ['autoScale2d', 'toImage'] };
    await this.Plotly.newPlot(div, traces, layout, config);
    div.on('plotly_hover', this.guard(e => this.hover(div, e), true));
    div.on('plotly_unhover', () => { this.tip.hidden = true; });
    div.on('plotly_click', this.guard(e => { const i = this.nodeOf(e.points[0]); if (i >= 0) this.pick(i, true); }));
    div.on('plotly_selected', e => { if (e && !this.settling) { this.settling = true; setTimeout(this.guard(() => this.lassoed(div, e))); } });
    div.on('plotly_deselect', this.guard(() => { if (!this.settling) this.setSelected(null); }));
    div.on('plotly_webglcontextlost', this.guard(() => { if (this.gl) { this.gl = false; this.drawn(); this.redraw(); this.say(this.note); } }));
    this.drawMarks();
  }

  caption(map) {
    const t = this.state.blend, both = 'base' in this.s.maps && 'reshaped' in this.s.maps;
    const when = map !== 'recommender' ? '' : !both ? ` (${'base' in this.s.maps ? 'before' : 'after'} reshaping)` : t === 0 ? ' before reshaping' : t === 1 ? ' after reshaping' : ` at ${Math.round(100 * t)} % of the way`;
    return `${escaped(map)}${when} (UMAP, no unit: read who is near whom)`;
  }

  nodeOf(point) { return point && point.curveNumber < 2 ? this.ids[point.curveNumber][point.pointNumber ?? point.pointIndex] : -1; }

  async redraw() {
    await this.draw(this.plot, () => this.state.map);
    if (this.state.side) await this.draw(this.plot2, () => this.other());
    this.drawSelection();
  }

  charts() { return [[this.plot, this.state.map], [this.plot2, this.other()]].filter(([p]) => p.data); }
  other() { return [...this.map.options].map(o => o.value).find(k => k !== this.state.map) ?? this.state.map; }

  // --- what a person does
  setBlend(t, told = false) {
    this.state.blend = t;
    this.slider.value = 100 * t;
    for (const [p, map] of this.charts()) if (map === 'recommender') this.Plotly.restyle(p, this.coordinates(map), [0, 1]);
    this.drawMarks();
    if (!told) this.hooks.onState?.('blend', t);
  }

  play(to) {  // the same points move, in a few frames
    const from = this.state.blend, frames = this.s.n > 8000 ? 6 : 15;
    let k = 0;
    const step = this.guard(() => { k++; this.setBlend(k >= frames ? to : from + (to - from) * k / frames, k < frames); if (k < frames) requestAnimationFrame(step); });
    if (from !== to) step();
  }

  setMap(map, told = false) {
    this.state.map = map; this.map.value = map;
    this.blendRow.hidden = !('base' in this.s.maps && 'reshaped' in this.s.maps) || (map !== 'recommender' && !this.state.side);
    for (const [p, m] of this.charts()) this.Plotly.update(p, this.coordinates(m), { 'xaxis.autorange': true, 'yaxis.autorange': true }, [0, 1]);
    this.drawMarks();
    if (!told) this.hooks.onState?.('map', map);
  }

  async setSide(on) {
    this.state.side = on; this.sideBox.checked = on; this.plot2.hidden = !on;
    if (!on) { this.Plotly.purge(this.plot2); this.Plotly.Plots.resize(this.plot); return; }
    await this.Plotly.Plots.resize(this.plot);
    await this.draw(this.plot2, () => this.other());
    this.drawSelection();
  }

  paint(p) {
    const c = this.palette();
    this.Plotly.restyle(p, { 'marker.color': this.markers(), 'marker.colorscale': [c.scale, c.scale], 'marker.cmin': c.cmin, 'marker.cmax': c.cmax }, [0, 1]);
  }

  setColour(name, told = false) {
    if (!this.column(name)) throw new Error(`there is no column ${name}`);
    this.state.colour = name; this.colour.value = name; this.colours = null;
    for (const [p] of this.charts()) this.paint(p);
    this.showLegend();
    if (this.state.picked >= 0) this.showCard(this.state.picked);
    if (!told) this.hooks.onState?.('colour', name);
  }

  showLegend() {
    const c = this.column(), p = this.palette(), parts = [make('span', { class: 'px-shapes', text: '● users  ◆ items' })];
    if (c.labels) c.labels.slice(0, 8).forEach((l, k) => parts.push(make('button', { type: 'button', class: 'px-chip', title: 'select these', onclick: this.guard(() => this.setSelected(Int32Array.from(Array(this.s.n).keys()).filter(i => c.values[i] === k))) },
      make('span', { class: 'px-swatch', style: `background:${OKABE[k]}` }), make('span', { text: l }))));
    else {
      const scale = p.scale.slice(3).map(x => x[1]).join(',');
      parts.push(make('span', { text: shown(p.low) }), make('span', { class: 'px-ramp', style: `background:linear-gradient(90deg,${scale})` }), make('span', { text: shown(p.high) }));
    }
    const none = c.values.some(v => c.labels ? v < 0 || v >= 8 : Number.isNaN(v));
    if (none) parts.push(make('span', { class: 'px-chip' }, make('span', { class: 'px-swatch', style: `background:${p.grey}` }), make('span', { text: c.labels?.length > 8 ? 'others or no value' : 'no value' })));
    if (c.help) parts.push(make('span', { class: 'px-help', text: c.help }));
    this.legend.replaceChildren(...parts);
  }

  hover(div, e) {
    const i = this.nodeOf(e.points[0]);
    if (i < 0) return;
    const c = this.column(), v = c.labels ? c.labels[c.values[i]] ?? 'no value' : shown(c.values[i]), text = this.s.texts[i];
    this.tip.replaceChildren(make('b', { text: this.s.names[i] }), make('div', { text: `${c.name}: ${v}` }), make('div', { class: 'px-tiptext', text: text.length > 160 ? text.slice(0, 160) + ' …' : text }));
    const box = this.root.getBoundingClientRect(), x = e.event.clientX - box.left, y = e.event.clientY - box.top;
    this.tip.hidden = false;
    this.tip.style.left = `${Math.min(x + 14, box.width - 270)}px`; this.tip.style.top = `${y + 14}px`;
  }

  find() {
    const q = this.search.value.trim().toLowerCase();
    if (!q) { this.results.replaceChildren(); this.setSelected(null); this.say(''); return; }
    const hits = [];
    for (let i = 0; i < this.s.n; i++) if (this.s.search[i].includes(q)) hits.push(i);
    this.say(`${hits.length.toLocaleString('en')} of ${this.s.n.toLocaleString('en')} match${hits.length > 20 ? '; the first 20 are listed' : ''}.`);
    this.results.replaceChildren(...hits.slice(0, 20).map(i => make('li', {}, this.link(i))));
    this.setSelected(Int32Array.from(hits), false, false);
  }

  link(i, more = '') {
    return make('button', { type: 'button', class: 'px-link', 'data-node': i, onclick: this.guard(() => this.pick(i, true)) }, make('span', { class: 'px-kind', text: isUser(this.s, i) ? '● ' : '◆ ' }),
      make('bdi', { text: this.s.names[i] }), ...(more ? [make('span', { class: 'px-more', text: ' ' + more })] : []));
  }

  pick(i, own) {
    if (!(i >= 0 && i < this.s.n)) { this.state.picked = -1; this.drawMarks(); return; }
    this.state.picked = i;
    this.showCard(i);
    if (own) this.hooks.onPick?.(i);
    // the card is painted before the slower drawings begin; a later pick makes them needless
    return new Promise(done => requestAnimationFrame(() => setTimeout(this.guard(async () => { if (this.state.picked === i) { this.drawMarks(); await this.showDistribution(i); } done(); }, true), 30)));
  }

  showCard(i) {
    const s = this.s, user = isUser(s, i), parts = [];
    parts.push(make('h3', {}, make('bdi', { text: s.names[i] })), make('div', { class: 'px-note', text: `${user ? 'user' : 'item'} ${s.ids[i]}` }));
    parts.push(make('blockquote', { class: 'px-profile', dir: 'auto', text: s.texts[i] || 'no profile' }));
    const facts = s.columns.map(c => [c.name, c.labels ? c.labels[c.values[i]] : Number.isFinite(c.values[i]) ? shown(c.values[i]) : undefined, c.help]).filter(f => f[1] !== undefined);
    parts.push(make('details', { open: facts.length <= 8 }, make('summary', { text: 'Facts' }), make('dl', {}, ...facts.flatMap(f => [make('dt', { text: f[0], title: f[2] ?? '' }), make('dd', {}, make('bdi', { text: f[1] }))]))));
    const group = (title, nodes, most = 12) => { if (nodes.length) parts.push(make('details', { open: true }, make('summary', { text: `${title} (${nodes.length})` }), make('ul', {}, ...nodes.slice(0, most).map(([j, m]) => make('li', {}, this.link(j, m)))),
      ...(nodes.length > most ? [make('div', { class: 'px-note', text: `and ${nodes.length - most} more` })] : []))); };
    if (user && s.reasons) parts.push(this.reasonsOf(i));
    if (user) for (const [k, title] of [['train', 'History'], ['test', 'Held out'], ['added', 'Added interactions']]) group(title, [...rowOf(s, s.lists[k], i)].map(j => [j + s.n_users, '']));
    if (s.vectors[this.state.space]) {
      const c = cosines(s, this.state.space, i), near = (a, b) => nearest(c, a, b, 6, i).map(j => [j, c[j].toFixed(2)]);
      const menu = make('select', { class: 'px-space', 'aria-label': 'Space of the neighbours', onchange: this.guard(e => { this.state.space = e.target.value; this.showCard(i); this.drawMarks(); }) },
        ...Object.keys(s.vectors).map(k => make('option', { value: k, text: k, selected: k === this.state.space })));
      parts.push(make('label', { class: 'px-note' }, make('span', { text: 'Nearest by cosine in the original space of ' }), menu));
      group('Nearest users', near(0, s.n_users)); group('Nearest items', near(s.n_users, s.n));
    }
    this.card.replaceChildren(...parts);
  }

  reasonsOf(i) {  // the best items of a user after reshaping, and why: worked out when the scene was made
    const s = this.s, rows = s.reasons.rows[i], item = j => make('bdi', { text: s.names[s.n_users + j] });
    if (!rows) return make('div', { class: 'px-note', text: `Reasons stand here for ${s.reasons.users.toLocaleString('en')} of ${s.n_users.toLocaleString('en')} users.` });
    const why = ([j, before, first, share, words]) => make('li', {}, this.link(s.n_users + j, before ? `before: rank ${before}` : ''),
      ...(first < 0 ? [] : [make('div', { class: 'px-note px-why' }, make('span', { text: `${s.reasons.how}: ${share} % ` }), item(first))]),
      ...(words ? [make('div', { class: 'px-note px-why', text: `meets: ${words}` })] : []));
    return make('details', { open: true, class: 'px-reasons' }, make('summary', { text: `Shown, and why (${rows.length})` }), make('ol', {}, ...rows.map(why)));
  }

  neighbours(i) {
    if (!this.s.vectors[this.state.space]) return [];
    const c = cosines(this.s, this.state.space, i);
    return [...nearest(c, 0, this.s.n_users, 6, i), ...nearest(c, this.s.n_users, this.s.n, 6, i)];
  }

  // --- marks: ring, lines to neighbours, arrows of movement, cluster names
  drawMarks() {
    const s = this.s, i = this.state.picked, near = i >= 0 ? this.neighbours(i) : [];
    for (const [p, map] of this.charts()) {
      const at = j => this.position(map, j), shapes = [], notes = [];
      if (i >= 0) {
        const [x, y] = at(i), line = { color: this.ink, width: 1 };
        if (Number.isFinite(x)) {
          for (const j of near) { const [x1, y1] = at(j); if (Number.isFinite(x1)) shapes.push({ type: 'line', x0: x, y0: y, x1, y1, line, opacity: .7 }); }
          shapes.push({ type: 'circle', xsizemode: 'pixel', ysizemode: 'pixel', xanchor: x, yanchor: y, x0: -8, x1: 8, y0: -8, y1: 8, line: { color: this.ink, width: 3 } });
        }
      }
      if (this.arrowBox.checked && map === 'recommender') {
        const from = s.maps.base, to = s.maps.reshaped, who = this.state.selected ?? (i >= 0 ? Int32Array.of(i) : this.movers());
        for (const j of [...who].slice(0, 150)) if (Number.isFinite(from[2 * j])) notes.push({ x: to[2 * j], y: to[2 * j + 1], ax: from[2 * j], ay: from[2 * j + 1], axref: 'x', ayref: 'y', xref: 'x', yref: 'y', text: '', showarrow: true, arrowhead: 2, arrowsize: 1, arrowwidth: 1, arrowcolor: this.ink, opacity: .6 });
      }
      const names = s.labels[map === 'recommender' ? (this.state.blend < .5 && s.labels.base ? 'base' : 'reshaped') : map] ?? [];
      const behind = this.dark ? 'rgba(17,17,17,.7)' : 'rgba(255,255,255,.7)';
      for (const n of names) notes.push({ x: n.x, y: n.y, xref: 'x', yref: 'y', text: escaped(n.text), showarrow: false, font: { size: 12, color: this.ink }, bgcolor: behind, borderpad: 1 });
      // shapes and annotations, not traces: WebGL points are drawn over every trace that is not
      const title = this.caption(map), told = p.layout.xaxis.title.text === title ? {} : { 'xaxis.title.text': title };
      this.Plotly.relayout(p, { shapes, annotations: notes, ...told });
    }
  }

  movers() {  // those that moved farthest
    if (!this.far) {
      const a = this.s.maps.base, b = this.s.maps.reshaped, d = j => Math.hypot(a[2 * j] - b[2 * j], a[2 * j + 1] - b[2 * j + 1]) || 0;
      this.far = Int32Array.from(Array(this.s.n).keys()).sort((x, y) => d(y) - d(x)).slice(0, 100);
    }
    return this.far;
  }

  async lassoed(div, e) {
    const ids = [];
    for (const q of e.points) { const i = this.nodeOf(q); if (i >= 0) ids.push(i); }
    // the drawn outline goes: plotly would select by it again at every change, and a lasso begun inside of it would move it
    try { await this.Plotly.relayout(div, { selections: [] }); } finally { this.settling = false; }
    this.setSelected(Int32Array.from(ids.sort((a, b) => a - b)));
  }

  setSelected(ids, told = false, list = true) {
    this.state.selected = ids && ids.length ? ids : null;
    this.drawSelection();
    if (this.arrowBox.checked) this.drawMarks();
    if (list) this.showSelection();
    if (!told) this.hooks.onSelect?.(this.state.selected ?? new Int32Array(0));
  }

  drawSelection() {
    const s = this.state.selected;
    let points = [null, null];
    if (s) { points = [[], []]; for (const i of s) { const j = this.place[i]; if (j >= 0) points[isUser(this.s, i) ? 0 : 1].push(j); } }
    for (const [p] of this.charts()) this.Plotly.restyle(p, { selectedpoints: points }, [0, 1]);
  }

  showSelection() {
    const ids = this.state.selected;
    if (!ids) { this.picks.replaceChildren(); return; }
    const users = ids.filter(i => isUser(this.s, i)).length;
    const rows = [...ids.slice(0, 100)].map(i => make('li', {}, this.link(i)));
    this.picks.replaceChildren(make('h3', { text: `Selected: ${users.toLocaleString('en')} users, ${(ids.length - users).toLocaleString('en')} items` }),
      make('button', { type: 'button', class: 'px-csv', text: 'save as CSV', onclick: this.guard(() => this.csv(ids)) }), make('ul', {}, ...rows),
      ...(ids.length > 100 ? [make('div', { class: 'px-note', text: `and ${(ids.length - 100).toLocaleString('en')} more, all in the CSV` })] : []));
  }

  csv(ids) {
    const q = v => { const t = String(v ?? ''); return `"${(/^[=+\-@\t]/.test(t) && Number.isNaN(Number(t)) ? "'" + t : t).replaceAll('"', '""')}"`; };
    const lines = [['kind', 'id', 'name', ...this.s.columns.map(c => c.name), 'profile'].map(q).join(',')];
    for (const i of ids) lines.push([isUser(this.s, i) ? 'user' : 'item', this.s.ids[i], this.s.names[i], ...this.s.columns.map(c => c.labels ? c.labels[c.values[i]] : Number.isFinite(c.values[i]) ? c.values[i] : ''), this.s.texts[i]].map(q).join(','));
    const url = URL.createObjectURL(new Blob([lines.join('\r\n')], { type: 'text/csv' }));
    make('a', { href: url, download: 'selection.csv' }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
  }

  walk(e) {  // arrow keys: the nearest point in that direction
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[e.key];
    if (!way) return;
    e.preventDefault();
    if (this.state.picked < 0) { this.pick(this.ids[0][0] ?? this.ids[1][0], true); return; }
    const [x, y] = this.position(this.state.map, this.state.picked);
    let best = -1, least = Infinity;
    for (const ids of this.ids) for (const j of ids) {
      const [a, b] = this.position(this.state.map, j), dx = a - x, dy = b - y, along = dx * way[0] + dy * way[1], d = dx * dx + dy * dy;
      if (along > .7 * Math.sqrt(d) && d > 0 && d < least) { least = d; best = j; }
    }
    if (best >= 0) this.pick(best, true);
  }

  // --- one user's distributions
  async showDistribution(i) {
    const s = this.s, spaces = ['profiles', 'base', 'reshaped'].filter(k => s.vectors[k]);
    if (!isUser(s, i) || !spaces.length) { this.dist.hidden = true; this.distNote.textContent = isUser(s, i) ? '' : 'Pick a user to see its distributions over items.'; return; }
    const made = Object.fromEntries(spaces.map(k => [k, softmax(s, k, i, k === 'profiles' ? s.settings.teacher_tau ?? s.settings.tau : s.settings.tau)]));
    const lead = made.profiles ?? made.base ?? made.reshaped, order = [...lead.keys()].sort((a, b) => lead[b] - lead[a]);
    const names = { profiles: 'p: profiles', base: 'q: before', reshaped: "q': after" }, dash = { profiles: 'solid', base: 'dot', reshaped: 'dash' }, colour = { profiles: this.dark ? '#e6c15a' : '#555', base: OKABE[0], reshaped: OKABE[1] };
    const top = order.slice(0, 300), rank = top.map((_, k) => k + 1);
    const traces = [...spaces].reverse().map(k => ({ type: 'scatter', mode: k === 'profiles' ? 'lines' : 'markers', name: names[k], x: rank, y: top.map(j => made[k][j]), hoverinfo: 'skip',
      line: { color: colour[k], dash: dash[k], width: 2 }, marker: { color: colour[k], size: 4, symbol: k === 'base' ? 'circle-open' : 'x', opacity: .8 } }));
    const sets = [['train', 'history', 'line-ns-open'], ['test', 'held out', 'star'], ['added', 'added', 'cross-open']], floor = Math.min(...traces.flatMap(t => t.y)) * .8;
    const at = new Map(top.map((j, k) => [j, k + 1]));
    for (const [k, name, symbol] of sets) { const js = [...rowOf(s, s.lists[k], i)].filter(j => at.has(j)); if (js.length) traces.push({ type: 'scatter', mode: 'markers', name, x: js.map(j => at.get(j)), y: js.map(() => floor), hoverinfo: 'skip', marker: { symbol, size: 10, color: k === 'test' ? OKABE[2] : this.ink, line: { width: 1.5, color: k === 'test' ? OKABE[2] : this.ink } } }); }
    this.dist.hidden = false;
    await this.Plotly.react(this.dist, traces, { autosize: true, height: 300, margin: { l: 70, r: 10, t: 30, b: 40 }, paper_bgcolor: 'rgba(0,0,0,0)', plot_bgcolor: 'rgba(0,0,0,0)', font: { color: this.ink },
      legend: { orientation: 'h', y: 1.15 }, xaxis: { title: { text: `items, most fitting profile first (top ${top.length} of ${s.n_items})` }, gridcolor: '#8884' }, yaxis: { type: 'log', title: { text: 'probability' }, gridcolor: '#8884', exponentformat: 'power' } }, { displaylogo: false, showSendToCloud: false });
    const say = [];
    if (made.profiles) {
      const sharp = 1 - entropy(made.profiles) / Math.log(s.n_items);
      say.push(`Profile sharpness ${sharp.toFixed(3)}, published confidence weight ${Math.min(1, Math.max(s.settings.floor, sharp)).toFixed(3)} (floor ${s.settings.floor}).`);
      for (const [k, word] of [['base', 'before'], ['reshaped', 'after']]) if (made[k]) say.push(`${word}: KL ${divergence(made.profiles, made[k]).toFixed(4)}, JS ${jensen(made.profiles, made[k]).toFixed(4)} nats.`);
    }
    this.distNote.textContent = say.join(' ');
  }

  destroy() {
    this.media.removeEventListener('change', this.onTheme); this.watcher.disconnect(); this.sizer.disconnect();
    for (const p of [this.plot, this.plot2, this.dist]) this.Plotly.purge(p);
  }
}

// plotly reads a few tags in texts: cluster names are the only data it is given, escaped
const escaped = t => String(t).replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('$', '&#36;');

// ---------- in a notebook (anywidget)
let library = null;  // plotly.js, once a page
function plotlyFrom(source) {
  if (!library) {
    const url = URL.createObjectURL(new Blob(['const module={exports:{}};const exports=module.exports;const define=undefined;\n', source, '\nexport default module.exports;'], { type: 'text/javascript' }));
    library = import(url).then(m => m.default).finally(() => URL.revokeObjectURL(url));
  }
  return library;
}

function render({ model, el }) {
  const note = make('div', { class: 'px-note', role: 'status', text: 'Loading the map …' });
  el.replaceChildren(note);
  let explorer = null, quiet = false, parts = {};
  const send = (kind, more = {}, buffers) => model.send({ kind, ...more }, undefined, buffers);
  const set = (k, v) => { quiet = true; model.set(k, v); model.save_changes(); quiet = false; };
  const problem = e => { el.prepend(make('div', { class: 'px-alert', role: 'alert', text: `The map cannot be shown: ${e?.message ?? e}` })); send('error', { text: String(e?.stack ?? e) }); };
  const hooks = { onPick: i => set('picked', i), onSelect: ids => send('select', {}, [ids.buffer]), onState: (k, v) => set(k, v), onError: text => send('error', { text }) };
  const show = async () => {
    const [scene, Plotly] = await Promise.all([unpack(parts.scene), plotlyFrom(parts.plotly)]);
    if (model.get('svg')) hooks.webgl = false;
    explorer?.destroy();
    explorer = new Explorer(el, scene, Plotly, hooks);
    await explorer.ready;
    const colour = model.get('colour');
    if (colour && explorer.column(colour)) explorer.setColour(colour, true);
    if (model.get('map')) explorer.setMap(model.get('map'), true);
    explorer.setBlend(model.get('blend'), true);
    explorer.pick(model.get('picked'), false);
    el.dataset.ready = 'yes';
  };
  const onMessage = (m, buffers) => {
    if (m.kind === 'part') { parts[m.name] = buffers[0]; if (parts.scene && (parts.plotly || library)) show().catch(problem); }
    if (m.kind === 'select') explorer?.setSelected(new Int32Array(buffers[0].buffer.slice(buffers[0].byteOffset, buffers[0].byteOffset + buffers[0].byteLength)), true);
  };
  model.on('msg:custom', onMessage);
  const react = { picked: v => explorer?.pick(v, false), colour: v => v && explorer?.setColour(v, true), blend: v => explorer?.setBlend(v, true), map: v => v && explorer?.setMap(v, true) };
  for (const [k, f] of Object.entries(react)) model.on(`change:${k}`, () => { if (!quiet) { try { f(model.get(k)); } catch (e) { explorer ? explorer.fail(e) : problem(e); } } });
  send('ready', { plotly: !library });
  return () => { model.off('msg:custom', onMessage); explorer?.destroy(); };
}

// ---------- in a file (save_html): <div class="px-mount" data-scene="id of a script element with base64">
async function mountAll() {
  for (const el of document.querySelectorAll('.px-mount')) {
    try {
      const scene = await unpack(bytes(document.getElementById(el.dataset.scene).textContent.trim()));
      const explorer = new Explorer(el, scene, globalThis.Plotly, {});
      await explorer.ready;
      el.explorer = explorer; el.dataset.ready = 'yes';
    } catch (e) { el.replaceChildren(make('div', { class: 'px-alert', role: 'alert', text: `The map cannot be shown: ${e?.message ?? e}` })); }
  }
}

export { Explorer, mountAll };
export default { render };
