// Points of a map, drawn: positions of two maps lie in the graphics memory and are blended there, so that a step of the
// slider is one number. A grid over the blended places answers hover and lasso. Without WebGL a 2D canvas draws.
// Labels and marks are written with fillText on a canvas above: text from data never becomes markup.
// explorer.js follows in the same module.

// ---------- a grid over places: who is near a spot, who is inside an outline
class Grid {
  constructor(x, y, alive) {  // x, y: Float32Array, NaN where not shown; alive(i): whether a point can be met
    this.x = x; this.y = y;
    let x0 = Infinity, x1 = -Infinity, y0 = Infinity, y1 = -Infinity, n = 0;
    const here = new Uint8Array(x.length);
    for (let i = 0; i < x.length; i++) {
      const a = x[i], b = y[i];
      if (a !== a || !alive(i)) continue;
      here[i] = 1; n++;
      if (a < x0) x0 = a;
      if (a > x1) x1 = a;
      if (b < y0) y0 = b;
      if (b > y1) y1 = b;
    }
    const side = Math.max(1, Math.min(512, Math.ceil(Math.sqrt(n / 2)))), step = Math.max(x1 - x0, y1 - y0, 1e-9) / side;
    Object.assign(this, { x0, y0, step, wide: n ? Math.floor((x1 - x0) / step) + 1 : 1, high: n ? Math.floor((y1 - y0) / step) + 1 : 1 });
    const start = new Int32Array(this.wide * this.high + 1), cell = new Int32Array(x.length);
    for (let i = 0; i < x.length; i++) if (here[i]) { cell[i] = this.cellOf(x[i], y[i]); start[cell[i] + 1]++; }
    for (let c = 0; c < start.length - 1; c++) start[c + 1] += start[c];
    const next = start.slice(0, -1), ids = new Int32Array(n);
    for (let i = 0; i < x.length; i++) if (here[i]) ids[next[cell[i]]++] = i;
    this.start = start; this.ids = ids;
  }

  cellOf(a, b) { return Math.floor((b - this.y0) / this.step) * this.wide + Math.floor((a - this.x0) / this.step); }

  cells(x0, y0, x1, y1, visit) {  // the cells that meet a box
    const c0 = Math.max(0, Math.floor((x0 - this.x0) / this.step)), c1 = Math.min(this.wide - 1, Math.floor((x1 - this.x0) / this.step));
    const r0 = Math.max(0, Math.floor((y0 - this.y0) / this.step)), r1 = Math.min(this.high - 1, Math.floor((y1 - this.y0) / this.step));
    for (let r = r0; r <= r1; r++) for (let c = c0; c <= c1; c++) visit(r * this.wide + c, c, r);
  }

  nearest(a, b, radius) {  // the point nearest to a spot, at most `radius` away; -1 for none
    let best = -1, least = radius * radius;
    this.cells(a - radius, b - radius, a + radius, b + radius, cell => {
      for (let k = this.start[cell]; k < this.start[cell + 1]; k++) {
        const i = this.ids[k], dx = this.x[i] - a, dy = this.y[i] - b, d = dx * dx + dy * dy;
        if (d <= least) { least = d; best = i; }
      }
    });
    return best;
  }

  inside(outline) {  // points inside an outline [[x, y], ...], in order; whole cells are taken or left at once where no edge meets them
    const edges = outline.map((p, k) => [...p, ...outline[(k + 1) % outline.length]]);
    const xs = outline.map(p => p[0]), ys = outline.map(p => p[1]), found = [];
    const holds = (a, b) => {
      let odd = false;
      for (const [x0, y0, x1, y1] of edges) if (y0 > b !== y1 > b && a < (x1 - x0) * (b - y0) / (y1 - y0) + x0) odd = !odd;
      return odd;
    };
    const met = new Set(), s = this.step;
    for (const [x0, y0, x1, y1] of edges) {  // cells that an edge may pass: along it in half steps, with a ring of neighbours
      const steps = Math.ceil(2 * Math.max(Math.abs(x1 - x0), Math.abs(y1 - y0)) / s) + 1;
      for (let k = 0; k <= steps; k++) {
        const a = x0 + (x1 - x0) * k / steps, b = y0 + (y1 - y0) * k / steps;
        this.cells(a - s, b - s, a + s, b + s, cell => met.add(cell));
      }
    }
    this.cells(Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys), (cell, c, r) => {
      if (this.start[cell] === this.start[cell + 1]) return;
      const edge = met.has(cell), whole = !edge && holds(this.x0 + (c + .5) * s, this.y0 + (r + .5) * s);
      if (!edge && !whole) return;
      for (let k = this.start[cell]; k < this.start[cell + 1]; k++) { const i = this.ids[k]; if (whole || holds(this.x[i], this.y[i])) found.push(i); }
    });
    return Int32Array.from(found).sort();
  }
}

// ---------- labels: the most important first, none over another, over a forbidden box or over the edge
function placeLabels(labels, { width, height, at, sizeOf, taken = [], gap = 5 }) {
  const placed = [], boxes = [...taken];
  const free = b => b[0] >= 2 && b[1] >= 2 && b[2] <= width - 2 && b[3] <= height - 2 && boxes.every(o => b[2] + gap <= o[0] || o[2] + gap <= b[0] || b[3] + gap <= o[1] || o[3] + gap <= b[1]);
  for (const label of labels) {
    const [x, y] = at(label), [w, h] = sizeOf(label);
    if (!(x > -w && x < width + w && y > -h && y < height + h)) continue;
    for (const [dx, dy] of label.beside ? [[w / 2 + 9, 0], [-w / 2 - 9, 0]] : [[0, 0], [0, -h], [0, h], [-w / 3, 0], [w / 3, 0]]) {
      const box = [x + dx - w / 2, y + dy - h / 2, x + dx + w / 2, y + dy + h / 2];
      if (!free(box)) continue;
      boxes.push(box);
      placed.push({ label, x: x + dx, y: y + dy, box });
      break;
    }
  }
  return placed;
}

// ---------- shading: how many points crowd around each spot of a coarse picture, smoothed
function crowd(x, y, alpha, view, wide, high, cell) {
  const counts = new Float32Array(wide * high), { cx, cy, k, width, height } = view;
  for (let i = 0; i < x.length; i++) {
    if (alpha[4 * i + 3] < 60) continue;  // hidden or dim
    const c = ((x[i] - cx) * k + width / 2) / cell, r = (height / 2 - (y[i] - cy) * k) / cell;
    if (c >= 0 && r >= 0 && c < wide && r < high) counts[(r | 0) * wide + (c | 0)]++;
  }
  const spare = new Float32Array(counts.length);
  for (let pass = 0; pass < 3; pass++) { smear(counts, spare, wide, high, 1, wide, 3); smear(spare, counts, high, wide, wide, 1, 3); }
  return counts;
}

function smear(from, to, length, lines, step, stride, radius) {  // running means along lines
  for (let l = 0; l < lines; l++) {
    let sum = 0;
    const p = l * stride;
    for (let k = 0; k < Math.min(radius, length); k++) sum += from[p + k * step];
    for (let k = 0; k < length; k++) {
      if (k + radius < length) sum += from[p + (k + radius) * step];
      if (k - radius - 1 >= 0) sum -= from[p + (k - radius - 1) * step];
      to[p + k * step] = sum / (2 * radius + 1);
    }
  }
}

// ---------- graphics
const VERTEX = `#version 300 es
uniform float blend, size;
uniform vec2 centre, scale;
layout(location = 0) in vec2 before;
layout(location = 1) in vec2 after;
layout(location = 2) in vec4 colour;
out vec4 ink;
void main() {
  vec2 at = (mix(before, after, blend) - centre) * scale;
  gl_Position = colour.a == 0. || before.x > 1e8 || after.x > 1e8 ? vec4(2., 2., 0., 1.) : vec4(at, 0., 1.);
  gl_PointSize = size;
  ink = colour;
}`;
const FRAGMENT = `#version 300 es
precision mediump float;
uniform bool diamond;
uniform float soft, edge;
uniform vec3 rim;
in vec4 ink;
out vec4 pixel;
void main() {
  vec2 p = abs(gl_PointCoord * 2. - 1.);
  float far = diamond ? p.x + p.y : length(p);
  float a = ink.a * clamp((1. - far) / soft, 0., 1.);
  if (a <= 0.) discard;
  pixel = vec4(mix(ink.rgb, rim, clamp((far - edge) / soft, 0., 1.)) * a, a);
}`;

class Graphics {  // positions of maps, once each, and colours: what is drawn is said by a few numbers
  constructor(canvas) {
    const gl = canvas.getContext('webgl2', { antialias: false, premultipliedAlpha: true, alpha: true, depth: false });
    if (!gl) throw new Error('no WebGL 2');
    this.gl = gl; this.maps = new Map();
    const program = gl.createProgram();
    for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, source); gl.compileShader(shader);
      if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS)) throw new Error(gl.getShaderInfoLog(shader));
      gl.attachShader(program, shader);
    }
    gl.linkProgram(program);
    if (!gl.getProgramParameter(program, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(program));
    gl.useProgram(program);
    this.at = name => gl.getUniformLocation(program, name);
    this.uniforms = Object.fromEntries(['blend', 'size', 'centre', 'scale', 'diamond', 'soft', 'edge', 'rim'].map(u => [u, this.at(u)]));
    this.colours = gl.createBuffer();
    gl.bindVertexArray(gl.createVertexArray());
    for (const k of [0, 1, 2]) gl.enableVertexAttribArray(k);
    gl.enable(gl.BLEND); gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
  }

  buffer(name, places) {
    if (!this.maps.has(name)) {
      const { gl } = this, made = gl.createBuffer(), clean = Float32Array.from(places, v => v === v ? v : 1e9);
      gl.bindBuffer(gl.ARRAY_BUFFER, made); gl.bufferData(gl.ARRAY_BUFFER, clean, gl.STATIC_DRAW);
      this.maps.set(name, made);
    }
    return this.maps.get(name);
  }

  recolour(rgba) {
    const { gl } = this;
    gl.bindBuffer(gl.ARRAY_BUFFER, this.colours); gl.bufferData(gl.ARRAY_BUFFER, rgba, gl.DYNAMIC_DRAW);
  }

  draw(p, ratio) {  // p: PointMap
    const { gl, uniforms: u } = this, { width, height, cx, cy, k } = p.view, { size, rim } = p.look;
    gl.viewport(0, 0, gl.drawingBufferWidth, gl.drawingBufferHeight);
    gl.clearColor(0, 0, 0, 0); gl.clear(gl.COLOR_BUFFER_BIT);
    [p.from, p.to].forEach((name, slot) => { gl.bindBuffer(gl.ARRAY_BUFFER, this.buffer(name, p.maps[name])); gl.vertexAttribPointer(slot, 2, gl.FLOAT, false, 0, 0); });
    gl.bindBuffer(gl.ARRAY_BUFFER, this.colours); gl.vertexAttribPointer(2, 4, gl.UNSIGNED_BYTE, true, 0, 0);
    gl.uniform1f(u.blend, p.blend); gl.uniform2f(u.centre, cx, cy); gl.uniform2f(u.scale, 2 * k / width, 2 * k / height);
    gl.uniform3f(u.rim, ...rim);
    for (const [first, count, diamond] of [[0, p.split, 0], [p.split, p.n - p.split, 1]]) {
      const wide = Math.max(1, size * ratio * (diamond ? 1.3 : 1));
      gl.uniform1i(u.diamond, diamond); gl.uniform1f(u.size, wide); gl.uniform1f(u.soft, Math.min(1, 3 / wide));
      gl.uniform1f(u.edge, size >= 6 ? 1 - 2.6 / wide - (diamond ? .08 : 0) : 2);
      if (count) gl.drawArrays(gl.POINTS, first, count);
    }
  }
}

function drawFlat(canvas, p, ratio) {  // without WebGL: one path a colour
  const ink = canvas.getContext('2d'), { size } = p.look, paths = new Map(), { x, y } = p.places();
  ink.setTransform(ratio, 0, 0, ratio, 0, 0); ink.clearRect(0, 0, p.view.width, p.view.height);
  for (let i = 0; i < p.n; i += p.every) {
    const a = p.rgba[4 * i + 3];
    if (!a || x[i] !== x[i]) continue;
    const [sx, sy] = p.screen(x[i], y[i]);
    if (sx < -9 || sy < -9 || sx > p.view.width + 9 || sy > p.view.height + 9) continue;
    const key = p.rgba32[i];
    let path = paths.get(key);
    if (!path) paths.set(key, path = new Path2D());
    const r = size / 2;
    if (i < p.split) { path.moveTo(sx + r, sy); path.arc(sx, sy, r, 0, 7); }
    else { const d = r * 1.3; path.moveTo(sx, sy - d); path.lineTo(sx + d, sy); path.lineTo(sx, sy + d); path.lineTo(sx - d, sy); path.closePath(); }
  }
  for (const [key, path] of paths) { ink.fillStyle = `rgba(${key & 255},${key >> 8 & 255},${key >> 16 & 255},${(key >>> 24) / 255})`; ink.fill(path); }
}

// ---------- the map: canvases, view, mouse and touch
const REACH = 12;  // pixels from which a point answers

class PointMap {
  constructor(box, maps, split, on, { webgl = true } = {}) {
    // maps: name -> Float32Array (x, y, x, y ...), NaN where not shown; the first `split` points are round, the others diamonds
    // on: hover(i, event, label), pick(i), label(label), select(ids), lost(), drawn(map), error(e); label: one that has texts to show (`seen`)
    Object.assign(this, { box, maps, split, on, n: Object.values(maps)[0].length / 2, blend: 0, every: 1, tool: 'move', labels: [], marks: null, dirty: true });
    this.from = this.to = Object.keys(maps)[0];
    this.rgba = new Uint8Array(4 * this.n).fill(160); this.rgba32 = new Uint32Array(this.rgba.buffer);
    this.look = { size: 6, rim: [1, 1, 1], shade: [90, 100, 120], ink: '#222', paper: '#fff' };
    this.view = { cx: 0, cy: 0, k: 1, width: 1, height: 1 };
    const canvas = () => { const c = document.createElement('canvas'); c.className = 'px-layer'; c.setAttribute('aria-hidden', 'true'); return c; };
    this.shade = canvas(); this.dots = canvas(); this.over = canvas();
    box.append(this.shade, this.dots, this.over);
    this.useGraphics(webgl);
    this.listen();
    this.sizer = new ResizeObserver(() => this.resize());
    this.sizer.observe(box);
  }

  useGraphics(wanted) {
    this.graphics = null;
    if (wanted) try { this.graphics = new Graphics(this.dots); } catch { /* a 2D canvas draws */ }
    if (!this.graphics) {  // a canvas that has had one kind of drawing never gets the other
      const other = this.dots.cloneNode();
      this.dots.replaceWith(other); this.dots = other;
      this.every = Math.max(1, Math.ceil(this.n / 20000));
    } else this.dots.addEventListener('webglcontextlost', e => { if (!this.gone) { e.preventDefault(); this.useGraphics(false); this.resize(); this.on.lost?.(); } });
    this.recolour(this.rgba);
  }

  // --- what is drawn
  show(from, to, blend) {
    if (from !== this.from || to !== this.to || blend !== this.blend) this.at = this.grid = null;
    Object.assign(this, { from, to, blend });
    this.wake();
  }

  recolour(rgba) {
    if (rgba !== this.rgba) { this.rgba = rgba; this.rgba32 = new Uint32Array(rgba.buffer); }
    this.grid = null;  // hidden points answer to nothing
    this.graphics?.recolour(rgba);
    this.wake();
  }

  places() {  // where every point is now
    if (!this.at) {
      const a = this.maps[this.from], b = this.maps[this.to], t = this.blend, x = new Float32Array(this.n), y = new Float32Array(this.n);
      for (let i = 0, p = 0; i < this.n; i++, p += 2) { x[i] = a[p] + (b[p] - a[p]) * t; y[i] = a[p + 1] + (b[p + 1] - a[p + 1]) * t; }
      this.at = { x, y };
    }
    return this.at;
  }

  index() {
    const { x, y } = this.places();
    return this.grid ??= new Grid(x, y, i => this.rgba[4 * i + 3] > 0 && i % this.every === 0);
  }

  screen(x, y) { const v = this.view; return [v.width / 2 + (x - v.cx) * v.k, v.height / 2 - (y - v.cy) * v.k]; }
  plane(sx, sy) { const v = this.view; return [v.cx + (sx - v.width / 2) / v.k, v.cy - (sy - v.height / 2) / v.k]; }

  spot(i) {  // where on the page a point is drawn
    const { x, y } = this.places(), box = this.box.getBoundingClientRect(), [sx, sy] = this.screen(x[i], y[i]);
    return [box.left + sx, box.top + sy];
  }

  get zoom() { return this.view.k / (this.fitted || this.view.k); }

  bounds() {  // of the maps shown: all but the outermost points
    const xs = [], ys = [], step = Math.max(1, Math.floor(this.n / 20000));
    for (const name of new Set([this.from, this.to])) { const m = this.maps[name]; for (let i = 0; i < this.n; i += step) if (m[2 * i] === m[2 * i]) { xs.push(m[2 * i]); ys.push(m[2 * i + 1]); } }
    const range = v => {
      const s = Float64Array.from(v).sort(), q = t => s[Math.round(t * (s.length - 1))], low = q(.01), high = q(.99), room = .1 * (high - low);  // islands beyond are a drag away
      return s.length ? [Math.max(q(0), low - room), Math.min(q(1), high + room)] : [0, 1];
    };
    return [...range(xs), ...range(ys)];
  }

  fit() {  // the whole map fills the box
    const [x0, x1, y0, y1] = this.bounds(), v = this.view, pad = Math.min(28, v.width / 12);
    v.cx = (x0 + x1) / 2; v.cy = (y0 + y1) / 2;
    v.k = Math.min((v.width - 2 * pad) / Math.max(x1 - x0, 1e-9), (v.height - 2 * pad) / Math.max(y1 - y0, 1e-9));
    this.fitted = v.k; this.moved = false;
    this.wake();
  }

  fly(i, zoom = 4) {  // bring a point to the middle
    const { x, y } = this.places();
    if (x[i] !== x[i]) return;
    const v = this.view, to = { cx: x[i], cy: y[i], k: Math.max(v.k, this.fitted * zoom) }, from = { ...v };
    this.moved = true;
    let k = 0;
    const still = matchMedia('(prefers-reduced-motion: reduce)').matches, frames = still ? 1 : 12;
    const step = () => {
      const t = ++k / frames, s = t * t * (3 - 2 * t);
      for (const key of ['cx', 'cy']) v[key] = from[key] + (to[key] - from[key]) * s;
      v.k = from.k * (to.k / from.k) ** s;
      this.wake();
      if (k < frames && !this.gone) requestAnimationFrame(step);
    };
    step();
  }

  resize() {
    const v = this.view, width = this.box.clientWidth, height = this.box.clientHeight;
    if (!width || !height) return;
    const ratio = Math.min(2, devicePixelRatio || 1), first = v.width === 1;
    if (v.width === width && v.height === height && this.dots.width === Math.round(width * ratio)) return;
    v.width = width; v.height = height; this.ratio = ratio;
    for (const c of [this.dots, this.over]) { c.width = Math.round(width * ratio); c.height = Math.round(height * ratio); }
    if (first || !this.moved) this.fit();
    this.paint();  // at once: a canvas whose size was set is empty
  }

  wake() {
    if (this.awake || this.gone) return;
    this.awake = true;
    requestAnimationFrame(() => { this.awake = false; try { this.paint(); } catch (e) { this.on.error?.(e); } });
  }

  paint() {
    if (this.view.width <= 1 || this.gone) return;
    if (this.graphics) this.graphics.draw(this, this.ratio); else drawFlat(this.dots, this, this.ratio);
    this.paintCrowd();
    this.paintOver();
    this.first ??= performance.now();
    this.on.drawn?.(this);
  }

  paintCrowd() {
    const { width, height } = this.view, cell = 4, wide = Math.ceil(width / cell), high = Math.ceil(height / cell), { x, y } = this.places();
    if (this.shade.width !== wide || this.shade.height !== high) { this.shade.width = wide; this.shade.height = high; }
    const ink = this.shade.getContext('2d');
    if (this.n < 300) { ink.clearRect(0, 0, wide, high); return; }
    const counts = crowd(x, y, this.rgba, this.view, wide, high, cell), picture = ink.createImageData(wide, high), [r, g, b] = this.look.shade;
    let most = .12;  // below that there is no crowd
    for (const v of counts) if (v > most) most = v;
    for (let i = 0; i < counts.length; i++) {
      const share = Math.sqrt(counts[i] / (most || 1));
      picture.data.set([r, g, b, Math.floor(share * 7) * 11 + share * 14], 4 * i);
    }
    ink.putImageData(picture, 0, 0);
  }

  paintOver() {
    const ink = this.over.getContext('2d'), { width, height } = this.view, { x, y } = this.places();
    ink.setTransform(this.ratio, 0, 0, this.ratio, 0, 0); ink.clearRect(0, 0, width, height);
    const taken = this.marks?.(ink, this, x, y) ?? [];
    this.written = this.paintLabels(ink, taken);
    if (this.outline) this.paintOutline(ink);
  }

  font(label) { return `${label.seen === undefined ? '' : 'italic '}${label.level === 0 ? 600 : label.beside ? 400 : 500} ${[15, 13, 12][label.level] ?? 11}px system-ui, sans-serif`; }

  sizeOf(ink, label) {  // measured once
    if (!label.size) { ink.font = this.font(label); label.size = [ink.measureText(label.text).width, ([15, 13, 12][label.level] ?? 11) * 1.25]; }
    return label.size;
  }

  paintLabels(ink, taken) {
    const { width, height } = this.view, zoom = this.zoom;
    const due = this.labels.filter(l => zoom >= l.from * .999 && zoom < l.until).concat(this.names?.(this) ?? []);
    const placed = placeLabels(due, { width, height, taken, at: l => this.screen(l.x, l.y), sizeOf: l => this.sizeOf(ink, l) });
    ink.textAlign = 'center'; ink.textBaseline = 'middle'; ink.lineJoin = 'round';
    for (const { label, x, y } of placed) {
      ink.font = this.font(label);
      ink.lineWidth = 3.5; ink.strokeStyle = this.look.paper; ink.strokeText(label.text, x, y);
      ink.fillStyle = this.look.ink; ink.fillText(label.text, x, y);
      if (label.seen !== undefined) this.underline(ink, x, y, label.size);
    }
    return placed;
  }

  underline(ink, x, y, [w, h]) {  // dotted, as a word that says more when it is clicked
    ink.beginPath(); ink.moveTo(x - w / 2, y + h / 2 - 1); ink.lineTo(x + w / 2, y + h / 2 - 1);
    ink.strokeStyle = this.look.ink; ink.lineWidth = 1; ink.setLineDash([1, 3]); ink.stroke(); ink.setLineDash([]);
  }

  paintOutline(ink) {
    ink.beginPath();
    this.outline.forEach(([sx, sy], k) => k ? ink.lineTo(sx, sy) : ink.moveTo(sx, sy));
    ink.closePath();
    ink.fillStyle = 'rgba(230,159,0,.12)'; ink.fill();
    ink.strokeStyle = '#c07f00'; ink.lineWidth = 1.5; ink.setLineDash([5, 4]); ink.stroke(); ink.setLineDash([]);
  }

  // --- mouse, touch, wheel
  here(e) { const box = this.box.getBoundingClientRect(); return [e.clientX - box.left, e.clientY - box.top]; }

  meet(sx, sy) {  // the point at a spot of the screen
    const [a, b] = this.plane(sx, sy);
    return this.index().nearest(a, b, Math.max(REACH, this.look.size) / this.view.k);
  }

  labelAt(sx, sy) { return this.written?.find(({ label, box: b }) => label.seen !== undefined && sx >= b[0] && sx <= b[2] && sy >= b[1] && sy <= b[3])?.label; }

  zoomAt(sx, sy, factor) {
    const [a, b] = this.plane(sx, sy), v = this.view;
    v.k = Math.min(Math.max(v.k * factor, this.fitted * .5), this.fitted * 400);
    v.cx = a - (sx - v.width / 2) / v.k; v.cy = b + (sy - v.height / 2) / v.k;
    this.moved = true;
    this.wake();
  }

  listen() {
    const at = this.over, fingers = new Map(), safe = f => e => { try { f(e); } catch (error) { this.on.error?.(error); } };
    let start = null, pinch = 0;
    at.addEventListener('wheel', safe(e => { e.preventDefault(); this.zoomAt(...this.here(e), Math.exp(-e.deltaY * (e.deltaMode ? .05 : .0016))); }), { passive: false });
    at.addEventListener('dblclick', safe(e => { e.preventDefault(); this.fit(); }));
    at.addEventListener('pointerdown', safe(e => {
      if (e.button > 0) return;
      at.setPointerCapture?.(e.pointerId);
      fingers.set(e.pointerId, this.here(e));
      const tool = e.shiftKey ? 'lasso' : this.tool;
      start = fingers.size === 1 ? { at: this.here(e), view: { ...this.view }, tool, dragged: false } : null;
      if (fingers.size === 2) { this.outline = null; pinch = spread(fingers); }
    }));
    at.addEventListener('pointermove', safe(e => {
      const [sx, sy] = this.here(e);
      if (fingers.has(e.pointerId)) fingers.set(e.pointerId, [sx, sy]);
      if (fingers.size === 2) {
        const [p, q] = [...fingers.values()], now = spread(fingers);
        this.zoomAt((p[0] + q[0]) / 2, (p[1] + q[1]) / 2, now / (pinch || now)); pinch = now;
        return;
      }
      if (!start) { const label = this.labelAt(sx, sy); this.on.hover?.(label ? -1 : this.meet(sx, sy), e, label); return; }  // browsers report the mouse once a frame
      if (!start.dragged && Math.hypot(sx - start.at[0], sy - start.at[1]) < 4) return;
      if (!start.dragged) this.on.hover?.(-1, e);
      start.dragged = true;
      if (start.tool === 'move') {
        this.view.cx = start.view.cx - (sx - start.at[0]) / this.view.k; this.view.cy = start.view.cy + (sy - start.at[1]) / this.view.k;
        this.moved = true;
      } else if (start.tool === 'box') { const [a, b] = start.at; this.outline = [[a, b], [sx, b], [sx, sy], [a, sy]]; }
      else { this.outline ??= [start.at]; const [a, b] = this.outline.at(-1); if (Math.hypot(sx - a, sy - b) > 4) this.outline.push([sx, sy]); }
      start.tool === 'move' ? this.wake() : requestAnimationFrame(safe(() => { if (this.view.width > 1) this.paintOver(); }));
    }));
    const end = safe(e => {
      fingers.delete(e.pointerId);
      const was = start, outline = this.outline;
      start = null; this.outline = null;
      if (!was || e.type === 'pointercancel') { this.wake(); return; }
      if (outline) { this.wake(); if (outline.length > 2) this.on.select?.(this.index().inside(outline.map(p => this.plane(...p)))); return; }
      if (!was.dragged) { const label = this.labelAt(...was.at), i = label ? -1 : this.meet(...was.at); if (label) this.on.label?.(label); else if (i >= 0) this.on.pick?.(i); }
    });
    at.addEventListener('pointerup', end); at.addEventListener('pointercancel', end);
    at.addEventListener('pointerleave', safe(e => this.on.hover?.(-1, e)));
  }

  destroy() {
    this.gone = true; this.sizer.disconnect();
    this.graphics?.gl.getExtension('WEBGL_lose_context')?.loseContext();
    for (const c of [this.shade, this.dots, this.over]) c.remove();
  }
}

const spread = fingers => { const [p, q] = [...fingers.values()]; return Math.hypot(p[0] - q[0], p[1] - q[1]); };
