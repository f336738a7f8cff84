"use strict";
/* The maps of a view: decoded from the picture that carries their values (values.py), coloured, and enlarged with the
   values under the cursor. Used by the report and by the live page, so it brings its own style and touches nothing else. */

window.nasreconMaps = window.nasreconMaps || (() => {
  const KINDS = ["image", "depth", "normals", "confidence"];
  const NO_VALUE = [96, 96, 96];
  const decoded = new WeakMap();
  let scale = "all"; // of the depths' colours: "all" views or this "view"
  let shown = null; // what is enlarged: { view, kind, about, box, parts, values, normals }

  async function pixels(uri) {
    const image = new Image();
    image.src = uri;
    await image.decode();
    const canvas = document.createElement("canvas");
    canvas.width = image.naturalWidth;
    canvas.height = image.naturalHeight;
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(image, 0, 0);
    return context.getImageData(0, 0, canvas.width, canvas.height);
  }

  /* { width, height, depth, confidence, sigma }: depth and sigma in scene units, 0 for none. */
  function decode(view) {
    if (!decoded.has(view)) decoded.set(view, pixels(view.values).then(({ width, height, data }) => {
      const n = width * height, [low, high] = view.range, span = Math.log(high / low);
      const out = { width, height, depth: new Float32Array(n), confidence: new Float32Array(n), sigma: new Float32Array(n) };
      for (let i = 0; i < n; i++) {
        const d = data[4 * i], s = data[4 * i + 2];
        out.depth[i] = d ? low * Math.exp((span * (d - 1)) / 254) : 0;
        out.confidence[i] = data[4 * i + 1] / 100;
        out.sigma[i] = s ? out.depth[i] * 1e-4 * 2 ** ((s - 1) / 6) : 0;
      }
      return out;
    }));
    return decoded.get(view);
  }

  /* Depths at the ends of the colours. about: { near, far } of all views. */
  const ends = (view, about) => (scale === "view" ? [view.near, view.far] : [about.near, about.far]);

  /* Draw "depth" or "confidence" into a canvas, at the size of the values. */
  async function paint(canvas, view, kind, about) {
    const maps = await decode(view), [near, far] = ends(view, about);
    canvas.width = maps.width;
    canvas.height = maps.height;
    const context = canvas.getContext("2d"), picture = context.createImageData(maps.width, maps.height);
    for (let i = 0; i < maps.depth.length; i++) {
      const z = maps.depth[i];
      const t = kind === "depth" ? (1 / z - 1 / far) / (1 / near - 1 / far || 1) : maps.confidence[i];
      const k = 3 * Math.round(255 * Math.max(0, Math.min(1, t)));
      for (let c = 0; c < 3; c++) picture.data[4 * i + c] = z > 0 ? about.palette[k + c] : NO_VALUE[c];
      picture.data[4 * i + 3] = 255;
    }
    context.putImageData(picture, 0, 0);
  }

  function length(x, unit) {
    const text = Number(x.toPrecision(3)).toString();
    return unit === "unknown" ? text : `${text} ${unit}`;
  }

  /* Labels at even distances along the depths' bar, far first. */
  function depthMarks(view, about, count) {
    const [near, far] = ends(view, about);
    return Array.from({ length: count }, (_, k) => length(1 / (1 / far + (k / (count - 1)) * (1 / near - 1 / far)), about.unit));
  }

  // The enlarged view --------------------------------------------------------------------------------------------------

  const STYLE = `
    #nasrecon-enlarged { position: fixed; inset: 0; z-index: 10000; background: rgba(24, 24, 24, .97); color: #e8e8e8; display: flex; flex-direction: column; gap: 8px; padding: 10px 14px; font: 14px/1.4 system-ui, "DejaVu Sans", sans-serif; }
    #nasrecon-enlarged .top, #nasrecon-enlarged .foot { display: flex; flex-wrap: wrap; gap: 6px 12px; align-items: center; }
    #nasrecon-enlarged .name { font-weight: 600; overflow-wrap: anywhere; }
    #nasrecon-enlarged button, #nasrecon-enlarged select { font: inherit; color: inherit; background: #3a3a3a; border: 1px solid #666; border-radius: 4px; padding: 3px 9px; cursor: pointer; }
    #nasrecon-enlarged button.on { background: #2a6099; border-color: #5b95d3; }
    #nasrecon-enlarged .close { margin-left: auto; }
    #nasrecon-enlarged .room { flex: 1; min-height: 0; position: relative; }
    #nasrecon-enlarged canvas { position: absolute; inset: 0; margin: auto; image-rendering: pixelated; cursor: crosshair; touch-action: none; }
    #nasrecon-enlarged .readout { min-height: 1.4em; font-variant-numeric: tabular-nums; }
    #nasrecon-enlarged .foot > div { flex: 1; }
    #nasrecon-enlarged .bar { width: min(420px, 100%); font-size: 12px; }
    #nasrecon-enlarged .bar i { display: block; height: 9px; }
    #nasrecon-enlarged .bar > span { display: flex; justify-content: space-between; }`;

  function make(tag, className, text = "") {
    const node = document.createElement(tag);
    node.className = className;
    node.textContent = text;
    return node;
  }

  function build(about) {
    const box = make("div", ""), top = make("div", "top"), foot = make("div", "foot"), style = make("style", "", STYLE);
    box.id = "nasrecon-enlarged";
    const parts = { name: make("span", "name"), canvas: make("canvas", ""), room: make("div", "room"), readout: make("div", "readout"), legend: make("div", ""), tabs: {} };
    top.append(parts.name);
    for (const kind of KINDS) {
      const tab = make("button", "", kind[0].toUpperCase() + kind.slice(1));
      tab.onclick = () => show(shown.view, kind);
      parts.tabs[kind] = tab;
      top.append(tab);
    }
    parts.scale = make("select", "");
    parts.scale.title = "Depths at the ends of the colours";
    parts.scale.append(new Option("scale of all views", "all"), new Option("scale of this view", "view"));
    parts.scale.onchange = () => setScale(parts.scale.value);
    top.append(parts.scale);
    for (const [label, by] of about.step ? [["Previous", -1], ["Next", 1]] : []) {
      const button = make("button", "", label);
      button.onclick = () => about.step(by);
      top.append(button);
    }
    const close = make("button", "close", "Close");
    close.onclick = hide;
    top.append(close);
    parts.room.append(parts.canvas);
    foot.append(parts.legend);
    box.append(style, top, parts.room, parts.readout, foot);
    parts.canvas.onpointermove = parts.canvas.onpointerdown = read;
    parts.canvas.onpointerleave = () => { parts.readout.textContent = "Values: move over the picture"; };
    document.body.append(box);
    new ResizeObserver(fit).observe(parts.room);
    return { box, parts, about };
  }

  /* Enlarge a view's map. about: { near, far, unit, palette, gradient, ball, step, rescaled }; step(by) goes to another
     view, rescaled() is called when the depths' scale is switched; both may be missing. */
  function open(view, kind, about) {
    if (shown && shown.about !== about) hide();
    shown = { ...(shown || build(about)), view };
    return show(view, kind);
  }

  async function show(view, kind) {
    const { parts, about } = shown;
    shown = { ...shown, view, kind, values: null, normals: null };
    parts.name.textContent = view.name;
    for (const [name, tab] of Object.entries(parts.tabs)) tab.className = name === kind ? "on" : "";
    parts.scale.style.visibility = kind === "depth" ? "" : "hidden";
    parts.scale.value = scale;
    parts.readout.textContent = "Values: move over the picture";
    legend(parts.legend, view, kind, about);
    const [values, normals] = await Promise.all([decode(view), pixels(view.pictures.normals)]);
    if (kind === "depth" || kind === "confidence") await paint(parts.canvas, view, kind, about);
    else {
      const picture = kind === "normals" ? normals : await pixels(view.pictures.image);
      parts.canvas.width = picture.width;
      parts.canvas.height = picture.height;
      parts.canvas.getContext("2d").putImageData(picture, 0, 0);
    }
    if (shown && shown.view === view && shown.kind === kind) Object.assign(shown, { values, normals });
    fit();
  }

  function legend(where, view, kind, about) {
    where.replaceChildren();
    if (kind === "depth" || kind === "confidence") {
      const bar = make("div", "bar"), colors = make("i", ""), marks = make("span", "");
      colors.style.background = about.gradient;
      for (const text of kind === "depth" ? depthMarks(view, about, 5) : ["0", "0.25", "0.5", "0.75", "1"]) marks.append(make("span", "", text));
      bar.append(colors, marks);
      where.append(bar);
    } else if (kind === "normals") {
      const ball = make("img", "");
      ball.src = about.ball;
      ball.style.cssText = "width:34px;vertical-align:middle;margin-right:8px";
      where.append(ball, "right is red, up is green, towards the camera is blue");
    }
  }

  function fit() {
    if (!shown) return;
    const { room, canvas } = shown.parts, by = Math.min(room.clientWidth / canvas.width, room.clientHeight / canvas.height);
    canvas.style.width = `${Math.floor(canvas.width * by)}px`;
    canvas.style.height = `${Math.floor(canvas.height * by)}px`;
  }

  /* The values at a place of the view, x and y from 0 to 1, as text. */
  function valuesAt(x, y) {
    const { values, normals, view, about } = shown;
    const at = (map) => Math.min(map.height - 1, Math.floor(y * map.height)) * map.width + Math.min(map.width - 1, Math.floor(x * map.width));
    const i = at(values), z = values.depth[i], place = `pixel ${Math.floor(x * view.size[0])}, ${Math.floor(y * view.size[1])}`;
    if (!(z > 0)) return `${place}: no value`;
    const n = 4 * at(normals), raw = [0, 1, 2].map((k) => normals.data[n + k] / 127.5 - 1), size = Math.hypot(...raw) || 1;
    const [right, up, back] = raw.map((v) => (v / size).toFixed(2));
    const sigma = values.sigma[i] ? `, sigma ${length(values.sigma[i], about.unit)}` : "";
    return `${place}: depth ${length(z, about.unit)}${sigma}, confidence ${values.confidence[i].toFixed(2)}, normal right ${right}, up ${up}, to the camera ${back}`;
  }

  function read(event) {
    if (!shown || !shown.values) return;
    const box = shown.parts.canvas.getBoundingClientRect();
    const x = (event.clientX - box.left) / box.width, y = (event.clientY - box.top) / box.height;
    if (x >= 0 && y >= 0 && x < 1 && y < 1) shown.parts.readout.textContent = valuesAt(x, y);
  }

  function hide() {
    if (shown) shown.box.remove();
    shown = null;
  }

  function setScale(to) {
    scale = to;
    if (shown) {
      show(shown.view, shown.kind);
      if (shown.about.rescaled) shown.about.rescaled();
    }
  }

  window.addEventListener("keydown", (event) => {
    if (!shown) return;
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key], kind = KINDS[Number(event.key) - 1];
    if (event.key === "Escape") hide();
    else if (by && shown.about.step) shown.about.step(by);
    else if (kind) show(shown.view, kind);
    event.stopImmediatePropagation(); // the page's own keys rest
  }, true);

  return { open, hide, paint, depthMarks, length, setScale, isOpen: () => Boolean(shown), kind: () => shown && shown.kind, scale: () => scale };
})();
