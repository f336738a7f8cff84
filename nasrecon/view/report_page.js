"use strict";
/* Fills the report in from its data; maps.js shows the maps, report_scene.js the scene. Text from the results is only ever set as text. */

const data = JSON.parse(document.getElementById("data").textContent);
const palette = Uint8Array.from(atob(data.palette), (c) => c.charCodeAt(0));
const KINDS = ["image", "depth", "normals", "confidence"];

/* An element with attributes ("text" sets its text, "on…" adds a listener) and children. */
function el(tag, attributes = {}, ...children) {
  const svg = ["svg", "rect", "line", "text", "title", "g"].includes(tag);
  const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "text") node.textContent = value;
    else if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else node.setAttribute(key, value);
  }
  node.append(...children);
  return node;
}

const byId = (id) => document.getElementById(id);
const count = (n) => n.toLocaleString("en-US");
const color = (t) => { const k = 3 * Math.round(255 * Math.max(0, Math.min(1, t))); return `rgb(${palette[k]},${palette[k + 1]},${palette[k + 2]})`; };

const length = (x) => nasreconMaps.length(x, data.unit);
const about = {
  near: data.near, far: data.far, unit: data.unit, palette, gradient: data.gradient, ball: data.ball,
  step: (by) => { step(by); nasreconMaps.open(data.views[chosen], nasreconMaps.kind(), about); },
  rescaled: () => rescaled(),
};

/* The map of a view as an element that enlarges it; depth and confidence are painted when they come into sight. */
const painter = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) if (isIntersecting) { painter.unobserve(target); target.repaint(); }
}, { rootMargin: "400px" });

function mapOf(view, kind) {
  const enlarge = (event) => { event.stopPropagation(); nasreconMaps.open(view, kind, about); };
  const attributes = { title: `${title(kind)}: click to enlarge`, class: "map", onclick: enlarge };
  if (view.pictures[kind]) return el("img", { ...attributes, src: view.pictures[kind], alt: `${view.name}: ${kind}`, loading: "lazy", decoding: "async" });
  const canvas = el("canvas", { ...attributes, "aria-label": `${view.name}: ${kind}`, width: view.size[0], height: view.size[1], "data-kind": kind });
  canvas.repaint = () => nasreconMaps.paint(canvas, view, kind, about);
  painter.observe(canvas);
  return canvas;
}

/* Draw the depths again in the scale that is chosen now. */
function rescaled() {
  for (const list of document.querySelectorAll(".depth-scale")) list.value = nasreconMaps.scale();
  for (const canvas of document.querySelectorAll("canvas[data-kind=depth]")) painter.observe(canvas);
  for (const where of document.querySelectorAll(".depth-bar")) where.replaceChildren(...depthBar(where.view).childNodes);
}

function scaleList() {
  const list = el("select", { class: "depth-scale", "aria-label": "Depths at the ends of the colours", onchange: (event) => { nasreconMaps.setScale(event.target.value); rescaled(); } },
    el("option", { value: "all", text: "scale of all views" }), el("option", { value: "view", text: "scale of each view" }));
  list.value = nasreconMaps.scale();
  return list;
}

function bar(marks) {
  return el("div", { class: "bar" }, el("div", { class: "scale", style: `background:${data.gradient}` }),
    el("div", { class: "marks" }, ...marks.map((text) => el("span", { text }))));
}

/* The colours of depth: of a view in the scale that is chosen, without one in that of all views. */
function depthBar(view) {
  const marks = view || nasreconMaps.scale() === "all" ? nasreconMaps.depthMarks(view || data, about, 4) : ["far", "near"];
  const where = el("div", { class: "depth-bar" }, bar(marks), el("div", { class: "soft" },
    el("span", { class: "swatch", style: "background:rgb(96,96,96)" }), el("span", { text: "no value" })));
  where.view = view;
  return where;
}

function ball() {
  return el("div", { class: "ball" }, el("img", { src: data.ball, alt: "legend of the normals" }),
    el("span", { text: "right is red, up is green, towards the camera is blue" }));
}

const legends = { image: () => "", depth: depthBar, normals: ball, confidence: () => bar(["0", "0.25", "0.5", "0.75", "1"]) };
const title = (text) => text[0].toUpperCase() + text.slice(1);

function header() {
  const unit = data.unit === "unknown" ? "lengths in the scene's own unit" : `lengths in ${data.unit}`;
  byId("header").append(el("h1", { text: data.title }),
    el("p", { class: "facts", text: `nasrecon report, ${data.written}: ${data.views.length} views, ${unit}` }),
    ...data.missing.map((text) => el("p", { class: "soft", text })), ...data.warnings.map((text) => el("p", { class: "note", text })));
  document.title = `${data.title}: nasrecon report`;
}

// The scene ----------------------------------------------------------------------------------------------------------

let scene = null, chosen = 0;
const step = (by) => choose((chosen + by + data.views.length) % data.views.length, true);

async function unpacked(id, Kind) {
  const element = byId(id);
  if (!element) return null;
  const packed = Uint8Array.from(atob(element.textContent), (c) => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const planes = new Uint8Array(await new Response(stream).arrayBuffer());
  element.remove();
  const size = Kind.BYTES_PER_ELEMENT, n = planes.length / size, bytes = new Uint8Array(planes.length);
  for (let b = 0; b < size; b++) for (let i = 0; i < n; i++) bytes[i * size + b] = planes[b * n + i];
  return new Kind(bytes.buffer);
}

async function startScene() {
  const kinds = {
    meshPosition: Int16Array, meshNormal: Int8Array, meshColor: Uint8Array, meshIndex: Int32Array,
    pointPosition: Int16Array, pointNormal: Int8Array, pointColor: Uint8Array, pointDepth: Uint8Array,
    pointConfidence: Uint8Array, pointSupport: Uint8Array,
  };
  const arrays = { palette };
  for (const [name, Kind] of Object.entries(kinds)) arrays[name] = await unpacked(name, Kind);
  if (arrays.meshIndex) {
    const index = new Uint32Array(arrays.meshIndex.length);
    for (let i = 0, at = 0; i < index.length; i++) { at += arrays.meshIndex[i]; index[i] = at; }
    arrays.meshIndex = index;
  }
  scene = new SceneView(byId("canvas"), data, arrays, (i) => choose(i, true));
  scene.hovered = (i, x, y) => {
    const tip = byId("tip");
    tip.hidden = i < 0;
    if (i >= 0) { tip.textContent = data.views[i].name; tip.style.left = `${x + 14}px`; tip.style.top = `${y + 6}px`; }
  };
  scene.measured = showMeasured;
  controls();
  listenToKeys();
  choose(0, false);
  byId("loading").hidden = true;
  await scene.setPictures(data.views.map((view) => { const image = new Image(); image.src = view.pictures.image; return image; }));
}

function thinned(shown, of, what) {
  return shown < of ? `${count(shown)} of ${count(of)} ${what} (thinned to keep this file small)` : `${count(of)} ${what}`;
}

function controls() {
  const o = scene.options, s = data.scene, panel = byId("controls");
  const check = (key, text, disabled = false, changed = () => {}) => {
    const box = el("input", { type: "checkbox", id: `layer-${key}`, onchange: (event) => { o[key] = event.target.checked; changed(); scene.draw(); } });
    box.checked = o[key];
    box.disabled = disabled;
    return el("label", {}, box, text);
  };
  const select = (key, text, names, changed = () => {}) => {
    const list = el("select", { id: `select-${key}`, onchange: (event) => { o[key] = Number(event.target.value); changed(); scene.draw(); } },
      ...names.map((name, i) => el("option", { value: i, text: name })));
    list.value = o[key];
    return el("label", {}, el("span", { text }), list);
  };
  const range = (key, text, low, high, step, changed = () => {}) => {
    const out = el("output", { text: Number(o[key].toFixed(2)) });
    const input = el("input", { type: "range", id: `range-${key}`, min: low, max: high, step, value: o[key],
      oninput: (event) => { o[key] = Number(event.target.value); out.textContent = o[key]; changed(); scene.draw(); } });
    return el("label", {}, el("span", { text }), el("div", { class: "range" }, input, out));
  };
  const legend = el("div", { class: "wide soft" });
  const facts = [s.mesh ? thinned(s.mesh.faces, s.mesh.of, "faces") : "no mesh", thinned(s.points.count, s.points.of, "points")];
  panel.append(
    el("div", { class: "wide soft", id: "counts", text: facts.join("; ") }),
    el("div", { class: "layers" }, check("mesh", "Mesh", !s.mesh), check("points", "Point cloud"), check("cameras", "Cameras"), check("backs", "Back sides"), check("dark", "Dark", false, setTheme)),
    select("surface", "Mesh", ["photo", "clay", "normals"]),
    select("coloring", "Cloud by", ["image", "normal", "depth", "confidence", "agreeing views"], () => cloudLegend(legend)),
    legend,
    range("threshold", "Confidence", 0, 1, 0.01),
    range("pointSize", "Point size", 1, 20, 0.5),
    range("cameraSize", "Camera size", 0.01, 0.4, 0.01, () => scene.buildCameras()),
    el("div", { class: "row wide" },
      el("button", { id: "overview", text: "Overview", onclick: () => scene.overview() }),
      el("button", { id: "measure", text: "Measure", title: "The distance between two points: click on both. Key: R", onclick: () => scene.startMeasuring() }),
      el("button", { id: "show-keys", text: "? Keys", onclick: showKeys })),
    el("div", { class: "wide soft", id: "distance" }),
  );
}

function setTheme() { document.documentElement.dataset.theme = scene.options.dark ? "dark" : "light"; }

/* What has been measured: points in the page, 0 to 2 of them; null where none is being picked. */
function showMeasured(points) {
  byId("measure").classList.toggle("on", Boolean(points));
  byId("distance").textContent = !points ? ""
    : points.length === 2 ? `distance ${length(Math.hypot(...V.add(points[1], points[0], -1)) / data.scale)}; click for the next one, Esc ends`
    : points.length === 1 ? "click on the second point" : "click on the first point";
}

const KEYS = [["left, right", "the view before and after"], ["F", "frame all: the overview"], ["M", "mesh on and off"], ["C", "point cloud on and off"],
  ["P", "cameras on and off"], ["D", "dark and light"], ["R", "measure a distance"], ["E", "enlarge the maps of the chosen view; 1 to 4: its four maps"], ["Esc", "close, end measuring"], ["?", "this list"]];

function showKeys() {
  const list = byId("keys");
  list.hidden = !list.hidden;
  list.replaceChildren(el("h3", { text: "Keys" }), ...KEYS.map(([key, text]) => el("div", {}, el("b", { text: key }), el("span", { text }))));
}

function listenToKeys() {
  const toggle = (key) => () => byId(`layer-${key}`).click();
  const acts = {
    ArrowLeft: () => step(-1), ArrowRight: () => step(1), f: () => scene.overview(), m: toggle("mesh"), c: toggle("points"), p: toggle("cameras"), d: toggle("dark"),
    r: () => scene.startMeasuring(), e: () => nasreconMaps.open(data.views[chosen], "image", about), "?": showKeys, h: showKeys,
    Escape: () => { byId("keys").hidden = true; scene.stopMeasuring(); },
  };
  window.addEventListener("keydown", (event) => {
    const act = acts[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    const isTyping = event.target instanceof Element && event.target.matches("select, input:not([type=checkbox])");
    if (!act || event.ctrlKey || event.metaKey || event.altKey || isTyping) return;
    event.preventDefault();
    act();
  });
}

function cloudLegend(where) {
  const top = Math.max(2, data.scene.points.support);
  const parts = [[], [ball(), "as the chosen view sees them"], [cloudDepthBar(), "in the nearest view that sees the point"],
    [bar(["0", "0.25", "0.5", "0.75", "1"]), "the highest of the views that see the point"],
    data.scene.points.support ? [bar(["1", String((1 + top) / 2), `${top} or more`]), "views that agree on the point"] : ["known once the views are fused"],
  ];
  where.replaceChildren(...parts[scene.options.coloring]);
}

/* The colours of the cloud's depths are those of all views, whatever the maps' scale. */
const cloudDepthBar = () => bar([0, 1, 2, 3].map((k) => length(1 / (1 / data.far + (k / 3) * (1 / data.near - 1 / data.far)))));

function choose(i, go) {
  const view = data.views[i];
  chosen = i;
  byId("tip").hidden = true;
  for (const card of document.querySelectorAll(".card.chosen")) card.classList.remove("chosen");
  byId(`card-${i}`).classList.add("chosen");
  const list = el("select", { id: "view-list", onchange: (event) => choose(Number(event.target.value), true) },
    ...data.views.map((other, k) => el("option", { value: k, text: other.name })));
  list.value = i;
  const sources = view.sources.map((name) => {
    const k = data.views.findIndex((other) => other.name === name);
    return k < 0 ? el("div", { text: `${name} (not finished)` })
      : el("div", { title: name, onclick: () => choose(k, true) }, el("img", { src: data.views[k].pictures.image, alt: name }), name);
  });
  byId("chosen").replaceChildren(
    el("div", { class: "row" }, el("button", { text: "Previous", onclick: () => step(-1) }), list, el("button", { text: "Next", onclick: () => step(1) })),
    el("div", { class: "name", id: "chosen-name", text: view.name, style: "margin-top:8px" }), el("div", { class: "soft", text: factsOf(view) }), faultOf(view),
    el("div", { class: "four" }, ...KINDS.map((kind) => el("figure", {}, el("figcaption", {}, title(kind), ...(kind === "depth" ? [scaleList()] : [])), mapOf(view, kind), legends[kind](view)))),
    el("h3", { text: "Sources", style: "margin-top:8px" }), el("div", { class: "sources" }, ...sources),
  );
  if (scene) {
    scene.chosen = i;
    if (go) scene.goToCamera(i); else scene.draw();
  }
}

const qualityOf = Object.fromEntries(data.quality.map((line) => [line.name, line]));
const faultOf = (view) => qualityOf[view.name].fault ? el("div", { class: "fault", text: qualityOf[view.name].fault }) : "";
const factsOf = (view) => [figuresOf(view), data.words[view.name]].filter(Boolean).join("; ");
const figuresOf = (view) => view.valid
  ? `depth ${length(view.near)} to ${length(view.far)}, median confidence ${view.confidence.toFixed(2)}, ${Math.round(100 * view.valid)} % of the pixels have a depth`
  : "no pixel has a depth";

// The rest of the page -----------------------------------------------------------------------------------------------

function sheet() {
  byId("legend").append(...KINDS.map((kind) => el("div", {}, el("figcaption", {}, title(kind), ...(kind === "depth" ? [scaleList()] : [])),
    kind === "image" ? el("div", { class: "soft", text: "click on a map to enlarge it, on the text to go to the view" }) : legends[kind]())));
  byId("sheet").append(...data.views.map((view, i) => el("div", {
    class: "card", id: `card-${i}`,
    onclick: () => goTo(i),
  },
    el("span", { class: "name", text: view.name }),
    el("div", { class: "pictures" }, ...KINDS.map((kind) => mapOf(view, kind))),
    el("div", { class: "soft", text: `${factsOf(view)}; ${view.sources.length} sources` }))));
}

function goTo(i) {
  choose(i, true);
  byId("scene").scrollIntoView({ behavior: "smooth" });
}

function quality() {
  const heads = [["view", ""], ...data.qualityColumns, ["attention", "what is wrong with the view"]];
  const rows = data.quality.map(({ name, cells, fault }) => {
    const i = data.views.findIndex((view) => view.name === name);
    return el("tr", { class: fault ? "fault" : "", tabindex: 0, onclick: () => goTo(i), onkeydown: (event) => { if (event.key === "Enter") goTo(i); } },
      el("td", { text: name }), ...cells.map((text) => el("td", { class: "number", text })), el("td", { text: fault }));
  });
  byId("quality").append(
    el("div", { class: "scroll" }, el("table", {}, el("tr", {}, ...heads.map(([text, meaning], k) => el("th", { text, title: meaning, class: k > 0 && k < heads.length - 1 ? "number" : "" }))), ...rows)),
    el("div", { class: "soft", text: data.qualityColumns.map(([name, meaning]) => `${name}: ${meaning}`).join("; ") + ". A click on a row goes to the view." }));
}

/* A histogram as SVG. bars: counts; colors: (i) => colour; marks: [[place in 0..1, text]]. */
function histogram(heading, bars, colors, marks, remark, tips) {
  const W = 420, H = 190, left = 46, bottom = 26, top = 8, total = bars.reduce((a, b) => a + b, 0) || 1, most = Math.max(...bars, 1);
  const svg = el("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": heading });
  const w = (W - left - 8) / bars.length, h = H - top - bottom;
  for (const part of [0, 0.5, 1]) {
    const y = top + h * (1 - part);
    svg.append(el("line", { x1: left, x2: W - 8, y1: y, y2: y, stroke: "currentColor", "stroke-opacity": 0.15 }),
      el("text", { x: left - 6, y: y + 4, "text-anchor": "end", text: `${((100 * part * most) / total).toFixed(1)} %` }));
  }
  bars.forEach((n, i) => svg.append(el("rect", { x: left + i * w, y: top + h * (1 - n / most), width: Math.max(1, w - 0.6), height: (h * n) / most, fill: colors(i) },
    el("title", { text: `${tips(i)}: ${count(n)}` }))));
  for (const [at, text] of marks) svg.append(el("text", { x: left + at * (W - left - 8), y: H - 8, "text-anchor": at > 0.97 ? "end" : at < 0.03 ? "start" : "middle", text }));
  return el("div", {}, el("h3", { text: heading }), svg, el("div", { class: "soft", text: remark }));
}

function histograms() {
  const { depth, confidence, support, beyond, invalid } = data.histograms, where = byId("histograms");
  const middle = (h, i) => h.low + ((i + 0.5) / h.counts.length) * (h.high - h.low);
  const ends = (h, write) => [0, 0.25, 0.5, 0.75, 1].map((at) => [at, write(h.low + at * (h.high - h.low))]);
  const range = (h, write) => (i) => `${write(h.low + (i / h.counts.length) * (h.high - h.low))} to ${write(h.low + ((i + 1) / h.counts.length) * (h.high - h.low))}`;
  const place = (z) => (1 / z - 1 / data.far) / (1 / data.near - 1 / data.far || 1);
  where.append(
    histogram("Depth, pixels of all views", depth.counts, (i) => color(place(middle(depth, i))), ends(depth, length),
      `${count(beyond)} pixels lie beyond, ${count(invalid)} have no depth`, range(depth, length)),
    histogram("Confidence, pixels of all views", confidence.counts, (i) => color(middle(confidence, i)), ends(confidence, (x) => x.toFixed(2)),
      "of the pixels with a depth", range(confidence, (x) => x.toFixed(2))),
  );
  if (!support.counts.length) {
    where.append(el("div", {}, el("h3", { text: "Agreeing views, points of the cloud" }), el("div", { class: "soft", text: "known once the views are fused: run nasrecon fuse" })));
    return;
  }
  const n = support.counts.length, top = Math.max(2, data.scene.points.support), every = Math.ceil(n / 10);
  const marks = support.counts.flatMap((_, i) => (i % every === 0 ? [[(i + 0.5) / n, String(i + 1)]] : []));
  where.append(histogram("Agreeing views, points of the cloud", support.counts, (i) => color(i / (top - 1)), marks,
    n < support.last ? `views that agree on a point; the last bar: ${n} to ${support.last}` : "views that agree on a point", (i) => `${i + 1} views`));
}

function tables() {
  byId("tables").append(...data.tables.map(({ title: heading, head, rows }) => {
    const numeric = head.map((_, k) => rows.every((row) => /^-?[\d.,]+( %)?$/.test(row[k])));
    const line = (cells, tag) => el("tr", {}, ...cells.map((text, k) => el(tag, { text, class: numeric[k] ? "number" : "" })));
    const body = rows.map((row) => line(row, "td"));
    return el("div", { class: head.length > 3 ? "wide" : "" }, el("h3", { text: heading }), el("table", {}, ...(head.some(Boolean) ? [line(head, "th")] : []), ...body));
  }));
}

header();
sheet();
quality();
histograms();
tables();
startScene().then(
  () => { document.documentElement.dataset.ready = "yes"; },
  (error) => {
    byId("loading").textContent = `The scene cannot be shown: ${error.message}. The rest of the report is below.`;
    choose(0, false);
    document.documentElement.dataset.ready = "without the scene";
  },
);
