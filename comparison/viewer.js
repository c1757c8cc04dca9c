// Pictures side by side: one contrast, one place, one zoom for all. Reads the page alone.
(async () => {
const data = JSON.parse(document.getElementById("viewer-data").textContent);
const {width: W, height: H, low, high} = data;
const at = id => document.getElementById(id);
const COLOURS = ["#0b6bcb", "#d1495b", "#1a7f4b", "#b36b00", "#7b4fb3", "#00808a", "#8c564b",
  "#5b6577", "#c2185b", "#6a8f00"];

async function inflated(text) {
  const bytes = Uint8Array.from(atob(text), c => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}
async function fine(text, from, to) {
  const bytes = await inflated(text), n = bytes.length / 2, out = new Float32Array(n);
  for (let i = 0; i < n; i++) out[i] = from + (bytes[i] * 256 + bytes[n + i]) / 65535 * (to - from);
  return out;
}

const pictures = await Promise.all(data.pictures.map(async (p, i) => ({
  ...p, colour: COLOURS[i % COLOURS.length], pixels: await fine(p.pixels, low, high),
  ssim: p.ssim && await inflated(p.ssim), spectrumMap: p.spectrum && await inflated(p.spectrum),
  stated: p.stated && await fine(p.stated, 0, p.stated_high),
})));
const named = name => pictures.find(p => p.name === name);
const raw = named("raw"), truth = named("truth");
const chosen = new Set(data.selected);

const MODES = {
  "the image": {of: p => p.pixels, range: () => contrast(), colour: grey, all: true},
  "what was removed (raw − estimate)":
    {of: p => p === raw ? null : minus(raw.pixels, p.pixels), range: () => spread, colour: twoSided},
  ...(truth ? {
    "error (estimate − truth)":
      {of: p => p === truth ? null : minus(p.pixels, truth.pixels), range: () => errors, colour: twoSided},
    "root-squared error":
      {of: p => p === truth ? null : absolute(minus(p.pixels, truth.pixels)),
       range: () => [0, errors[1]], colour: heat},
    "SSIM map (Gaussian, 11 px)":
      {of: p => p.ssim ? scaled(p.ssim) : null, range: () => [0, 1], colour: heat},
  } : {}),
  "stated uncertainty":
    {of: p => p.stated || null, range: () => [0, statedHigh], colour: heat},
  "spectrum of what was removed":
    {of: p => p.spectrumMap ? scaled(p.spectrumMap) : null, range: () => [0, 1], colour: heat,
     spectrum: true},
};
const minus = (a, b) => a.map((v, i) => v - b[i]);
const absolute = a => a.map(Math.abs);
const scaled = a => Float32Array.from(a, v => v / 255);
const statedHigh = Math.max(1e-6, ...pictures.filter(p => p.stated)
  .map(p => quantile(p.stated, .99)));
function quantile(values, share) {
  const sorted = Float32Array.from(values).sort();
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))];
}
const some = pictures.find(p => p !== raw && p !== truth) || raw;
const spreadAt = Math.max(1e-6, quantile(absolute(minus(raw.pixels, some.pixels)), .99));
const spread = [-spreadAt, spreadAt];
const errorAt = truth ? Math.max(1e-6, quantile(absolute(minus(some.pixels, truth.pixels)), .995)) : 1;
const errors = [-errorAt, errorAt];

function grey(t) { const v = 255 * t; return [v, v, v]; }
function heat(t) {  // black, violet, orange, white: the order of brightness is that of the values
  return [255 * Math.min(1, 1.6 * t), 255 * Math.max(0, Math.min(1, 1.8 * t - .6)),
    255 * (t < .5 ? .9 * Math.sin(Math.PI * t * 1.2) : Math.max(0, 2.6 * t - 1.6))];
}
function twoSided(t) {
  const u = 2 * t - 1;
  return u < 0 ? [255 * (1 + u), 255 * (1 + .7 * u), 255] : [255, 255 * (1 - .7 * u), 255 * (1 - u)];
}

// ------------------------------------------------------------------ the state, one for all
const view = {mode: Object.keys(MODES)[0], zoom: 1, x: W / 2, y: H / 2, line: H >> 1, vertical: false};
const toShare = adu => Math.round(1000 * (adu - low) / (high - low));
const toAdu = share => low + share / 1000 * (high - low);
const contrast = () => [toAdu(+at("dark").value), Math.max(toAdu(+at("bright").value), toAdu(+at("dark").value) + 1e-6)];
const side = () => Math.min(Math.max(W, H), Math.max(8, Math.max(W, H) / view.zoom));
function origin() {
  const s = side(), clamp = (v, n) => n <= s ? (n - s) / 2 : Math.max(0, Math.min(n - s, v - s / 2));
  return [clamp(view.x, W), clamp(view.y, H), s];
}

function paint(canvas, values, mode, w, h, x0, y0, s) {
  const n = Math.max(1, Math.round(s)), image = new ImageData(n, n), [from, to] = mode.range();
  for (let j = 0; j < n; j++) for (let i = 0; i < n; i++) {
    const x = Math.floor(x0) + i, y = Math.floor(y0) + j, k = 4 * (j * n + i);
    if (x < 0 || y < 0 || x >= w || y >= h) { image.data[k + 3] = 0; continue; }
    const t = Math.max(0, Math.min(1, (values[y * w + x] - from) / (to - from)));
    const [r, g, b] = mode.colour(t);
    image.data[k] = r; image.data[k + 1] = g; image.data[k + 2] = b; image.data[k + 3] = 255;
  }
  canvas.width = canvas.height = n;
  canvas.getContext("2d").putImageData(image, 0, 0);
}

const cache = new Map();
function valuesOf(p) {
  const key = view.mode + "\n" + p.name;
  if (!cache.has(key)) {
    if (cache.size > 60) cache.clear();
    cache.set(key, MODES[view.mode].of(p));
  }
  return cache.get(key);
}

function draw() {
  const mode = MODES[view.mode], [x0, y0, s] = origin();
  for (const p of pictures) {
    const values = chosen.has(p.name) ? valuesOf(p) : null;
    p.panel.style.display = values ? "" : "none";
    if (!values) continue;
    if (mode.spectrum) { paint(p.canvas, values, mode, data.spectrum, data.spectrum, 0, 0, data.spectrum); continue; }
    paint(p.canvas, values, mode, W, H, x0, y0, s);
    const pen = p.canvas.getContext("2d");
    pen.fillStyle = "rgba(255, 210, 0, .55)";
    if (view.vertical) pen.fillRect(view.line - Math.floor(x0), 0, Math.max(1, s / 400), s);
    else pen.fillRect(0, view.line - Math.floor(y0), s, Math.max(1, s / 400));
  }
  at("darkAdu").value = contrast()[0].toPrecision(4);
  at("brightAdu").value = contrast()[1].toPrecision(4);
  at("place").textContent = `x ${Math.max(0, Math.floor(x0))}, y ${Math.max(0, Math.floor(y0))}, ` +
    `${Math.round(Math.min(s, Math.max(W, H)))} px, frame ${data.frame}`;
  drawOverview(x0, y0, s); drawProfile(x0, y0, s); drawRadial();
}

function drawOverview(x0, y0, s) {
  const canvas = at("overview"), pen = canvas.getContext("2d");
  const shown = truth || raw, step = Math.max(1, Math.floor(Math.max(W, H) / 160));
  const w = Math.floor(W / step), h = Math.floor(H / step), image = new ImageData(w, h), [from, to] = contrast();
  for (let j = 0; j < h; j++) for (let i = 0; i < w; i++) {
    const v = 255 * Math.max(0, Math.min(1, (shown.pixels[j * step * W + i * step] - from) / (to - from)));
    image.data.set([v, v, v, 255], 4 * (j * w + i));
  }
  canvas.width = w; canvas.height = h; pen.putImageData(image, 0, 0);
  pen.strokeStyle = "#ffd200"; pen.lineWidth = 1.5;
  pen.strokeRect(x0 / step, y0 / step, s / step, s / step);
  canvas.onclick = e => { const box = canvas.getBoundingClientRect();
    view.x = (e.clientX - box.left) / box.width * W; view.y = (e.clientY - box.top) / box.height * H; draw(); };
}

// ------------------------------------------------------------------ plots
function plot(canvas, curves, {logY = false, logX = false, unit = ["", ""], level = null} = {}) {
  const ratio = window.devicePixelRatio || 1, box = canvas.getBoundingClientRect();
  canvas.width = box.width * ratio; canvas.height = box.height * ratio;
  const pen = canvas.getContext("2d"); pen.scale(ratio, ratio);
  const ink = getComputedStyle(document.body).color, L = 54, B = 30, R = 8, T = 8;
  const w = box.width - L - R, h = box.height - T - B;
  const points = curves.flatMap(c => c.points).filter(([x, y]) => isFinite(x) && isFinite(y) && (!logY || y > 0) && (!logX || x > 0));
  if (!points.length || w < 20) return;
  const fx = logX ? Math.log10 : v => v, fy = logY ? Math.log10 : v => v;
  const xs = points.map(p => fx(p[0])), ys = points.map(p => fy(p[1]));
  let [xa, xb] = [Math.min(...xs), Math.max(...xs)], [ya, yb] = [Math.min(...ys), Math.max(...ys)];
  if (level > 0) { ya = Math.min(ya, fy(level)); yb = Math.max(yb, fy(level)); }
  if (xb === xa) xb = xa + 1; if (yb === ya) yb = ya + 1;
  const X = v => L + (fx(v) - xa) / (xb - xa) * w, Y = v => T + h - (fy(v) - ya) / (yb - ya) * h;
  pen.font = "11px system-ui, sans-serif"; pen.fillStyle = pen.strokeStyle = ink; pen.globalAlpha = .8;
  pen.strokeRect(L, T, w, h);
  for (let i = 0; i <= 4; i++) {
    const vy = ya + i / 4 * (yb - ya), vx = xa + i / 4 * (xb - xa);
    pen.textAlign = "right"; pen.fillText(short(logY ? 10 ** vy : vy), L - 5, T + h - i / 4 * h + 4);
    pen.textAlign = i === 4 ? "right" : "center"; pen.fillText(short(logX ? 10 ** vx : vx), L + i / 4 * w, T + h + 14);
  }
  pen.textAlign = "center"; pen.fillText(unit[0], L + w / 2, T + h + 27);
  pen.globalAlpha = 1;
  if (level > 0) {
    pen.setLineDash([4, 4]); pen.beginPath(); pen.moveTo(L, Y(level)); pen.lineTo(L + w, Y(level)); pen.stroke(); pen.setLineDash([]);
  }
  for (const c of curves) {
    pen.strokeStyle = c.colour; pen.lineWidth = c.width || 1.3; pen.beginPath();
    let begun = false;
    for (const [x, y] of c.points) {
      if (!isFinite(y) || (logY && y <= 0) || (logX && x <= 0)) continue;
      begun ? pen.lineTo(X(x), Y(y)) : pen.moveTo(X(x), Y(y)); begun = true;
    }
    pen.stroke();
  }
  const named = curves.slice(0, 12), widest = Math.max(...named.map(c => pen.measureText(c.name).width));
  pen.fillStyle = getComputedStyle(document.body).backgroundColor; pen.globalAlpha = .8;
  pen.fillRect(L + w - widest - 12, T + 2, widest + 10, 13 * named.length + 6);
  pen.globalAlpha = 1; pen.textAlign = "right";
  named.forEach((c, i) => {
    pen.fillStyle = c.colour; pen.fillText(c.name, L + w - 6, T + 14 + 13 * i);
  });
}
const short = v => Math.abs(v) >= 1e4 || (v && Math.abs(v) < 1e-2) ? v.toExponential(1) : String(+v.toPrecision(3));

function drawProfile(x0, y0, s) {
  const along = view.vertical ? H : W, from = Math.max(0, Math.floor(view.vertical ? y0 : x0));
  const to = Math.min(along, Math.ceil((view.vertical ? y0 : x0) + s));
  const curves = pictures.filter(p => chosen.has(p.name)).map(p => ({
    name: p.name, colour: p === raw ? "#b9c0cb" : p === truth ? "#111" : p.colour,
    width: p === truth ? 2 : 1.2,
    points: Array.from({length: to - from}, (_, i) => [from + i,
      p.pixels[view.vertical ? (from + i) * W + view.line : view.line * W + from + i]]),
  }));
  if (truth && matchMedia("(prefers-color-scheme: dark)").matches)
    curves.filter(c => c.name === "truth").forEach(c => c.colour = "#fff");
  plot(at("profile"), curves, {unit: [view.vertical ? `y, px, at x = ${view.line}` : `x, px, at y = ${view.line}`, ""]});
}
function drawRadial() {
  plot(at("radial"), pictures.filter(p => p.radial && chosen.has(p.name)).map(p => ({
    name: p.name, colour: p.colour, points: p.frequency.map((f, i) => [f, p.radial[i]]) })),
    {logY: true, unit: ["cycles per pixel (dashed: the noise itself)", ""], level: data.noise});
}
function drawLosses() {
  if (!data.curves.length) { at("lossFigure").style.display = "none"; return; }
  plot(at("loss"), data.curves.map(c => {
    const least = Math.min(...c.rows.map(r => r.validation_loss));
    return {name: c.name, colour: (named(c.name) || {}).colour || "#888",
      points: c.rows.map(r => [r.seconds, r.validation_loss - least + 1e-4])};
  }), {logY: true, unit: ["seconds", ""]});
}

// ------------------------------------------------------------------ what a person does
for (const name of Object.keys(MODES)) at("mode").add(new Option(name));
for (const z of [1, 2, 4, 8, 16]) at("zoom").add(new Option(`${z}×`, z));
const reset = () => { at("dark").value = toShare(data.contrast[0]); at("bright").value = toShare(data.contrast[1]);
  view.zoom = W > 300 ? 2 : 1; at("zoom").value = view.zoom; view.x = W / 2; view.y = H / 2; draw(); };
at("mode").onchange = e => { view.mode = e.target.value; draw(); };
at("zoom").onchange = e => { view.zoom = +e.target.value; draw(); };
at("dark").oninput = at("bright").oninput = draw;
at("reset").onclick = reset;
for (const p of pictures) {
  const label = document.createElement("label"), box = document.createElement("input");
  box.type = "checkbox"; box.checked = chosen.has(p.name);
  box.onchange = () => { box.checked ? chosen.add(p.name) : chosen.delete(p.name); draw(); };
  label.append(box, p.name); at("names").append(label);
  p.panel = document.createElement("div"); p.panel.className = "panel";
  p.canvas = document.createElement("canvas"); p.canvas.tabIndex = 0;
  const below = document.createElement("p"), note = document.createElement("span");
  note.textContent = p.note ? ` ${p.note}` : "";
  below.append(p.name, note); p.panel.append(p.canvas, below); at("panels").append(p.panel);
  let held = null, moved = false;
  p.canvas.onpointerdown = e => { held = [e.clientX, e.clientY]; moved = false; p.canvas.setPointerCapture(e.pointerId); };
  p.canvas.onpointermove = e => {
    if (!held) return;
    const scale = side() / p.canvas.clientWidth, [dx, dy] = [e.clientX - held[0], e.clientY - held[1]];
    if (Math.abs(dx) + Math.abs(dy) < 3 && !moved) return;
    moved = true; const [x0, y0, s] = origin();
    view.x = x0 + s / 2 - dx * scale; view.y = y0 + s / 2 - dy * scale; held = [e.clientX, e.clientY]; draw();
  };
  p.canvas.onpointerup = e => {
    if (held && !moved && !MODES[view.mode].spectrum) {
      const box = p.canvas.getBoundingClientRect(), [x0, y0, s] = origin();
      const x = Math.floor(x0 + (e.clientX - box.left) / box.width * s), y = Math.floor(y0 + (e.clientY - box.top) / box.height * s);
      view.line = view.vertical ? Math.max(0, Math.min(W - 1, x)) : Math.max(0, Math.min(H - 1, y)); draw();
    }
    held = null;
  };
  p.canvas.onkeydown = e => { if (e.key === "v") { view.vertical = !view.vertical; view.line = (view.vertical ? W : H) >> 1; draw(); } };
  p.canvas.addEventListener("wheel", e => {
    e.preventDefault(); view.zoom = Math.max(1, Math.min(32, view.zoom * (e.deltaY < 0 ? 1.25 : .8))); draw();
  }, {passive: false});
}
addEventListener("resize", () => { draw(); drawLosses(); });
reset(); drawLosses();
})();

for (const table of document.querySelectorAll("table.sortable"))
  table.querySelectorAll("th").forEach((th, i) => th.onclick = () => {
    const down = th.dataset.down = th.dataset.down === "1" ? "" : "1";
    const value = tr => { const td = tr.children[i], v = td.dataset.value;
      return v === undefined ? td.textContent : +v; };
    const order = (a, b) => typeof a === typeof b ? (a < b ? -1 : a > b ? 1 : 0) : typeof a === "string" ? -1 : 1;
    const body = table.tBodies[0];
    body.append(...[...body.rows].sort((a, b) => (down ? -1 : 1) * order(value(a), value(b))));
  });
