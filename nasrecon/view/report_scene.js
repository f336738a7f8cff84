"use strict";
/* The scene of a report in WebGL 2: a mesh, points and cameras, in a frame whose z is up and whose size is about 1. */

const V = {
  add: (a, b, s = 1) => [a[0] + s * b[0], a[1] + s * b[1], a[2] + s * b[2]],
  scale: (a, s) => [a[0] * s, a[1] * s, a[2] * s],
  dot: (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2],
  cross: (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]],
  unit: (a) => V.scale(a, 1 / (Math.hypot(...a) || 1)),
  mix: (a, b, t) => [a[0] + (b[0] - a[0]) * t, a[1] + (b[1] - a[1]) * t, a[2] + (b[2] - a[2]) * t],
  turn(a, axis, angle) { // about a unit axis
    const c = Math.cos(angle), s = Math.sin(angle);
    return V.add(V.add(V.scale(a, c), V.cross(axis, a), s), axis, V.dot(axis, a) * (1 - c));
  },
};

const MESH_VERTEX = `#version 300 es
uniform mat4 clipFromPage; uniform float box;
in vec3 position; in vec3 normal; in vec3 color;
out vec3 n; out vec3 rgb; out vec3 at;
void main() { at = position * box; n = normal; rgb = color; gl_Position = clipFromPage * vec4(at, 1.0); }`;
const MESH_FRAGMENT = `#version 300 es
precision highp float;
uniform vec3 eye; uniform int surface; uniform mat3 shownFromPage;
in vec3 n; in vec3 rgb; in vec3 at; out vec4 shown;
void main() {
  vec3 m = normalize(n);
  float light = abs(dot(m, normalize(eye - at)));
  vec3 c = surface == 0 ? rgb * (0.86 + 0.14 * light) : surface == 1 ? vec3(0.86, 0.87, 0.88) * (0.2 + 0.8 * light) : 0.5 * (shownFromPage * m) + 0.5;
  shown = vec4(gl_FrontFacing ? c : 0.5 * c, 1.0);
}`;
const POINT_VERTEX = `#version 300 es
uniform mat4 clipFromPage; uniform float box, size, threshold, supportTop; uniform int coloring; uniform sampler2D palette; uniform mat3 shownFromPage;
in vec3 position; in vec3 normal; in vec3 color; in float depth, confidence, support;
out vec3 rgb;
vec3 scale(float t) { return texture(palette, vec2(clamp(t, 0.0, 1.0) * 255.0 / 256.0 + 0.5 / 256.0, 0.5)).rgb; }
void main() {
  vec3 unknown = vec3(96.0 / 255.0);
  float c = (confidence - 1.0) / 254.0;
  rgb = coloring == 0 ? color
    : coloring == 1 ? (dot(normal, normal) > 0.0 ? 0.5 * (shownFromPage * normal) + 0.5 : unknown)
    : coloring == 2 ? (depth > 0.0 ? scale((depth - 1.0) / 254.0) : unknown)
    : coloring == 3 ? (confidence > 0.0 ? scale(c) : unknown)
    : (support > 0.0 ? scale((support - 1.0) / max(supportTop - 1.0, 1.0)) : unknown);
  gl_Position = clipFromPage * vec4(position * box, 1.0);
  gl_PointSize = clamp(size / gl_Position.w, 1.0, 40.0);
  if (confidence > 0.0 && c < threshold) { gl_Position = vec4(2.0, 2.0, 2.0, 1.0); }
}`;
const POINT_FRAGMENT = `#version 300 es
precision highp float;
in vec3 rgb; out vec4 shown;
void main() {
  vec2 d = gl_PointCoord - 0.5;
  if (dot(d, d) > 0.25) discard;
  shown = vec4(rgb, 1.0);
}`;
const CAMERA_VERTEX = `#version 300 es
uniform mat4 clipFromPage;
in vec3 position; in vec2 place;
out vec2 uv;
void main() { uv = place; gl_Position = clipFromPage * vec4(position, 1.0); }`;
const CAMERA_FRAGMENT = `#version 300 es
precision highp float;
uniform vec4 color; uniform sampler2D atlas; uniform bool pictured;
in vec2 uv; out vec4 shown;
void main() { shown = pictured ? texture(atlas, uv) : color; }`;

/* What a ray from the eye meets first, among triangles and points. */
class Surface {
  constructor(data, arrays) {
    this.box = data.scene.box / 32767;
    this.arrays = data.scene.mesh ? { mesh: arrays.meshPosition, index: arrays.meshIndex } : {};
    this.points = arrays.pointPosition;
  }

  /* The nearest hit of a ray, or null; frontOnly: of faces that are turned to the eye; tangent: half the angle in which
     a point counts as met. */
  hit(eye, ray, mesh, points, frontOnly, tangent) {
    let best = Infinity;
    if (mesh && this.arrays.mesh) best = this.hitMesh(eye, ray, frontOnly);
    if (points) {
      for (let i = 0; i < this.points.length; i += 3) {
        const d = [0, 1, 2].map((k) => this.points[i + k] * this.box - eye[k]), along = V.dot(d, ray);
        if (along > 0 && along < best && V.dot(d, d) - along * along < (tangent * along) ** 2) best = along;
      }
    }
    return best < Infinity ? V.add(eye, ray, best) : null;
  }

  /* By Moeller and Trumbore, in numbers only: some 400 000 triangles are tried. */
  hitMesh(eye, ray, frontOnly) {
    const { mesh: p, index } = this.arrays, s = this.box, [ex, ey, ez] = eye, [rx, ry, rz] = ray;
    let best = Infinity;
    for (let i = 0; i < index.length; i += 3) {
      const a = 3 * index[i], b = 3 * index[i + 1], c = 3 * index[i + 2];
      const ax = s * p[a], ay = s * p[a + 1], az = s * p[a + 2];
      const ux = s * p[b] - ax, uy = s * p[b + 1] - ay, uz = s * p[b + 2] - az;
      const vx = s * p[c] - ax, vy = s * p[c + 1] - ay, vz = s * p[c + 2] - az;
      const hx = ry * vz - rz * vy, hy = rz * vx - rx * vz, hz = rx * vy - ry * vx;
      const det = ux * hx + uy * hy + uz * hz;
      if (frontOnly ? det <= 0 : det === 0) continue;
      const tx = ex - ax, ty = ey - ay, tz = ez - az, u = (tx * hx + ty * hy + tz * hz) / det;
      if (u < 0 || u > 1) continue;
      const qx = ty * uz - tz * uy, qy = tz * ux - tx * uz, qz = tx * uy - ty * ux, v = (rx * qx + ry * qy + rz * qz) / det;
      if (v < 0 || u + v > 1) continue;
      const t = (vx * qx + vy * qy + vz * qz) / det;
      if (t > 0 && t < best) best = t;
    }
    return best;
  }
}

class SceneView {
  /* canvas; data: the report's; arrays: typed arrays by name; chose(i): called when a camera is clicked. */
  constructor(canvas, data, arrays, chose) {
    this.canvas = canvas;
    this.data = data;
    this.chose = chose;
    this.gl = canvas.getContext("webgl2", { antialias: true, alpha: false });
    if (!this.gl) throw new Error("this browser has no WebGL 2");
    this.options = {
      mesh: Boolean(data.scene.mesh), points: !data.scene.mesh, cameras: true, backs: false, dark: false, surface: 0, coloring: 0,
      threshold: 0, pointSize: 6, cameraSize: Math.max(0.03, 0.12 * Math.min(1, Math.sqrt(30 / data.cameras.length))), // many stand close
    };
    this.chosen = -1;
    this.picked = null; // points that are being measured
    this.stand = null; // puts the eye again where it is, in a window of another size; null once it was moved by hand
    this.through = false; // the eye is in the place of the chosen camera
    this.surface = new Surface(data, arrays);
    this.programs = {
      mesh: this.program(MESH_VERTEX, MESH_FRAGMENT),
      points: this.program(POINT_VERTEX, POINT_FRAGMENT),
      cameras: this.program(CAMERA_VERTEX, CAMERA_FRAGMENT),
    };
    this.upload(arrays);
    this.overview();
    this.listen();
    new ResizeObserver(() => { if (this.stand) this.stand(); else this.draw(); }).observe(canvas);
  }

  program(vertex, fragment) {
    const gl = this.gl, program = gl.createProgram();
    for (const [kind, text] of [[gl.VERTEX_SHADER, vertex], [gl.FRAGMENT_SHADER, fragment]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, text);
      gl.compileShader(shader);
      if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS)) throw new Error(gl.getShaderInfoLog(shader));
      gl.attachShader(program, shader);
    }
    gl.linkProgram(program);
    if (!gl.getProgramParameter(program, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(program));
    return program;
  }

  /* Bind arrays to the attributes of a program: [name, array, size, type, normalized]. */
  arrays(program, attributes) {
    const gl = this.gl, vao = gl.createVertexArray();
    gl.bindVertexArray(vao);
    for (const [name, array, size, type, normalized] of attributes) {
      const where = gl.getAttribLocation(program, name);
      gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
      gl.bufferData(gl.ARRAY_BUFFER, array, gl.STATIC_DRAW);
      if (where < 0) continue;
      gl.enableVertexAttribArray(where);
      gl.vertexAttribPointer(where, size, type, normalized, 0, 0);
    }
    return vao;
  }

  upload(arrays) {
    const gl = this.gl;
    if (this.data.scene.mesh) {
      this.meshArrays = this.arrays(this.programs.mesh, [
        ["position", arrays.meshPosition, 3, gl.SHORT, true],
        ["normal", arrays.meshNormal, 3, gl.BYTE, true],
        ["color", arrays.meshColor, 3, gl.UNSIGNED_BYTE, true],
      ]);
      gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, gl.createBuffer());
      gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, arrays.meshIndex, gl.STATIC_DRAW);
      this.indexCount = arrays.meshIndex.length;
    }
    this.pointCount = arrays.pointDepth.length;
    this.pointArrays = this.arrays(this.programs.points, [
      ["position", arrays.pointPosition, 3, gl.SHORT, true],
      ["normal", arrays.pointNormal, 3, gl.BYTE, true],
      ["color", arrays.pointColor, 3, gl.UNSIGNED_BYTE, true],
      ["depth", arrays.pointDepth, 1, gl.UNSIGNED_BYTE, false],
      ["confidence", arrays.pointConfidence, 1, gl.UNSIGNED_BYTE, false],
      ["support", arrays.pointSupport, 1, gl.UNSIGNED_BYTE, false],
    ]);
    this.palette = this.texture(gl.NEAREST);
    gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGB, 256, 1, 0, gl.RGB, gl.UNSIGNED_BYTE, arrays.palette);
    this.atlas = null;
    this.buildCameras();
  }

  texture(filter) {
    const gl = this.gl, texture = gl.createTexture();
    gl.bindTexture(gl.TEXTURE_2D, texture);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, filter);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MAG_FILTER, filter);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_WRAP_S, gl.CLAMP_TO_EDGE);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_WRAP_T, gl.CLAMP_TO_EDGE);
    return texture;
  }

  /* Put the cameras' pictures (HTML images) into one texture. */
  async setPictures(images) {
    const gl = this.gl, columns = Math.ceil(Math.sqrt(images.length)), rows = Math.ceil(images.length / columns);
    const side = Math.max(16, Math.min(192, Math.floor(2048 / columns)));
    const canvas = document.createElement("canvas");
    canvas.width = columns * side;
    canvas.height = rows * side;
    const context = canvas.getContext("2d");
    for (const [i, image] of images.entries()) {
      await image.decode().catch(() => null);
      context.drawImage(image, (i % columns) * side, Math.floor(i / columns) * side, side, side);
    }
    this.atlas = this.texture(gl.LINEAR);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGB, gl.RGB, gl.UNSIGNED_BYTE, canvas);
    this.cell = (i) => {
      const inset = 0.5 / side, x = i % columns, y = Math.floor(i / columns);
      return [(x + inset) / columns, (y + inset) / rows, (x + 1 - inset) / columns, (y + 1 - inset) / rows];
    };
    this.buildCameras();
    this.draw();
  }

  corners(i) {
    const camera = this.data.cameras[i];
    return camera.corners.map((ray) => V.add(camera.at, ray, this.options.cameraSize));
  }

  buildCameras() {
    const gl = this.gl, lines = [], quads = [], places = [];
    this.data.cameras.forEach((camera, i) => {
      const [a, b, c, d] = this.corners(i);
      for (const end of [camera.at, a, camera.at, b, camera.at, c, camera.at, d, a, b, b, c, c, d, d, a]) lines.push(...end);
      const [u0, v0, u1, v1] = this.atlas ? this.cell(i) : [0, 0, 0, 0];
      quads.push(...a, ...b, ...c, ...a, ...c, ...d);
      places.push(u0, v0, u1, v0, u1, v1, u0, v0, u1, v1, u0, v1);
    });
    this.lineArrays = this.arrays(this.programs.cameras, [["position", new Float32Array(lines), 3, gl.FLOAT, false]]);
    this.quadArrays = this.arrays(this.programs.cameras, [
      ["position", new Float32Array(quads), 3, gl.FLOAT, false],
      ["place", new Float32Array(places), 2, gl.FLOAT, false],
    ]);
  }

  /* Where one stands: target, distance, forward and up, vertical field of view [radians]. */
  overview() {
    this.through = false;
    this.stand = this.overview;
    const { position, lookAt, fovDeg } = this.data.overview;
    const aspect = Math.min(1, this.canvas.clientWidth / Math.max(1, this.canvas.clientHeight));
    const forward = V.unit(V.add(lookAt, position, -1));
    const up = V.unit(V.cross(V.cross(forward, [0, 0, 1]), forward));
    this.go({ target: lookAt, distance: Math.hypot(...V.add(position, lookAt, -1)) / aspect, forward, up, fov: (fovDeg * Math.PI) / 180 });
  }

  goToCamera(i) {
    this.through = true;
    this.stand = () => this.goToCamera(i);
    const camera = this.data.cameras[i];
    const [, down, forward] = camera.axes;
    const aspect = this.canvas.clientWidth / Math.max(1, this.canvas.clientHeight);
    const fov = 2 * Math.atan(1.04 * Math.max(camera.tanY, camera.tanX / aspect));
    this.go({ target: V.add(camera.at, forward, camera.middle), distance: camera.middle, forward, up: V.scale(down, -1), fov });
  }

  go(place) {
    const from = this.place, start = performance.now();
    if (!from || document.hidden) { this.place = place; this.draw(); return; }
    const step = (now) => {
      const t = Math.min(1, (now - start) / 450), s = t * t * (3 - 2 * t);
      const forward = V.unit(V.mix(from.forward, place.forward, s));
      const up = V.mix(from.up, place.up, s);
      this.place = {
        target: V.mix(from.target, place.target, s), distance: from.distance + (place.distance - from.distance) * s,
        fov: from.fov + (place.fov - from.fov) * s, forward, up: V.unit(V.add(up, forward, -V.dot(up, forward))),
      };
      this.draw();
      if (t < 1) requestAnimationFrame(step); else this.place = place;
    };
    requestAnimationFrame(step);
  }

  eye() { return V.add(this.place.target, this.place.forward, -this.place.distance); }

  clipFromPage() {
    const { forward, up, fov, distance } = this.place, right = V.cross(forward, up), eye = this.eye();
    const near = Math.max(0.002, 0.01 * distance), far = distance + 40;
    const f = 1 / Math.tan(fov / 2), aspect = this.canvas.width / this.canvas.height;
    const rows = [V.scale(right, f / aspect), V.scale(up, f)];
    const a = (far + near) / (far - near), b = (-2 * far * near) / (far - near);
    const columns = [];
    for (let k = 0; k < 3; k++) columns.push(rows[0][k], rows[1][k], a * forward[k], forward[k]);
    columns.push(-V.dot(rows[0], eye), -V.dot(rows[1], eye), -a * V.dot(forward, eye) + b, -V.dot(forward, eye));
    return new Float32Array(columns);
  }

  draw() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => { this.waiting = false; this.paint(); });
  }

  paint() {
    const gl = this.gl, canvas = this.canvas, ratio = Math.min(window.devicePixelRatio || 1, 2), o = this.options;
    const width = Math.round(canvas.clientWidth * ratio), height = Math.round(canvas.clientHeight * ratio);
    if (!width || !height) return;
    if (canvas.width !== width || canvas.height !== height) { canvas.width = width; canvas.height = height; }
    gl.viewport(0, 0, width, height);
    const grey = (o.dark ? 48 : 200) / 255; // neither a hole nor a pale wall
    gl.clearColor(grey, grey, grey, 1);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    gl.enable(gl.DEPTH_TEST);
    const clip = this.clipFromPage();
    const use = (program) => {
      gl.useProgram(program);
      gl.uniformMatrix4fv(gl.getUniformLocation(program, "clipFromPage"), false, clip);
      gl.uniform1f(gl.getUniformLocation(program, "box"), this.data.scene.box);
      return (name) => gl.getUniformLocation(program, name);
    };
    if (o.mesh && this.meshArrays) {
      const at = use(this.programs.mesh);
      gl.uniform3fv(at("eye"), this.eye());
      gl.uniform1i(at("surface"), o.surface);
      gl.uniformMatrix3fv(at("shownFromPage"), false, this.shownFromPage());
      if (o.backs) gl.disable(gl.CULL_FACE); else gl.enable(gl.CULL_FACE);
      gl.bindVertexArray(this.meshArrays);
      gl.drawElements(gl.TRIANGLES, this.indexCount, gl.UNSIGNED_INT, 0);
      gl.disable(gl.CULL_FACE);
    }
    if (o.points) {
      const at = use(this.programs.points);
      gl.uniform1f(at("size"), (o.pointSize * 0.0012 * height) / (2 * Math.tan(this.place.fov / 2)));
      gl.uniform1f(at("threshold"), o.threshold);
      gl.uniform1f(at("supportTop"), Math.max(2, this.data.scene.points.support));
      gl.uniform1i(at("coloring"), o.coloring);
      gl.uniformMatrix3fv(at("shownFromPage"), false, this.shownFromPage());
      gl.bindTexture(gl.TEXTURE_2D, this.palette);
      gl.bindVertexArray(this.pointArrays);
      gl.drawArrays(gl.POINTS, 0, this.pointCount);
    }
    if (o.cameras) this.paintCameras(use(this.programs.cameras));
    this.paintMeasured();
  }

  /* The axes in which normals get their colours, right, up and towards the camera, of the chosen view. */
  shownFromPage() {
    const [right, down, forward] = this.data.cameras[Math.max(0, this.chosen)].axes;
    return [0, 1, 2].flatMap((k) => [right[k], -down[k], -forward[k]]);
  }

  paintCameras(at) {
    const gl = this.gl, count = this.data.cameras.length, i = this.chosen;
    gl.uniform1i(at("pictured"), 1);
    if (this.atlas && !this.through) {
      gl.bindTexture(gl.TEXTURE_2D, this.atlas);
      gl.bindVertexArray(this.quadArrays);
      // One looks through the chosen camera, so it carries no picture.
      if (i > 0) gl.drawArrays(gl.TRIANGLES, 0, 6 * i);
      if (i + 1 < count) gl.drawArrays(gl.TRIANGLES, 6 * (i + 1), 6 * (count - i - 1));
    }
    gl.uniform1i(at("pictured"), 0);
    gl.uniform4f(at("color"), 0.27, 0.33, 0.41, 1);
    gl.bindVertexArray(this.lineArrays);
    gl.drawArrays(gl.LINES, 0, 16 * count);
    gl.uniform4f(at("color"), 0.88, 0.42, 0, 1); // what needs attention
    this.data.cameras.forEach((camera, k) => { if (this.data.quality.some((line) => line.fault && line.name === this.data.views[k].name)) gl.drawArrays(gl.LINES, 16 * k, 16); });
    if (i >= 0) {
      gl.uniform4f(at("color"), 0.1, 0.45, 0.95, 1);
      gl.disable(gl.DEPTH_TEST);
      gl.drawArrays(gl.LINES, 16 * i, 16);
    }
  }

  /* Where a point of the page is in the window [css px], with its depth; null behind the eye. */
  project(point) {
    const { forward, up, fov } = this.place, right = V.cross(forward, up), ray = V.add(point, this.eye(), -1);
    const z = V.dot(ray, forward), f = this.canvas.clientHeight / (2 * Math.tan(fov / 2));
    if (z < 1e-4) return null;
    return [this.canvas.clientWidth / 2 + (f * V.dot(ray, right)) / z, this.canvas.clientHeight / 2 - (f * V.dot(ray, up)) / z, z];
  }

  /* The nearest camera whose picture is at a place of the window, or -1. */
  cameraAt(x, y) {
    let best = -1, nearest = Infinity;
    if (!this.options.cameras) return best;
    this.data.cameras.forEach((_, i) => {
      if (i === this.chosen) return;
      const quad = this.corners(i).map((corner) => this.project(corner));
      if (quad.some((corner) => !corner)) return;
      const sides = quad.map((a, k) => {
        const b = quad[(k + 1) % 4];
        return (b[0] - a[0]) * (y - a[1]) - (b[1] - a[1]) * (x - a[0]);
      });
      const z = quad[0][2] + quad[2][2];
      if ((sides.every((s) => s >= 0) || sides.every((s) => s <= 0)) && z < nearest) { nearest = z; best = i; }
    });
    return best;
  }

  listen() {
    const canvas = this.canvas, pointers = new Map();
    let moved = 0, spread = 0;
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      pointers.set(event.pointerId, [event.clientX, event.clientY]);
      moved = spread = 0;
    });
    canvas.addEventListener("pointermove", (event) => {
      const before = pointers.get(event.pointerId);
      if (!before) { this.hover(event); return; }
      const dx = event.clientX - before[0], dy = event.clientY - before[1];
      pointers.set(event.pointerId, [event.clientX, event.clientY]);
      moved += Math.abs(dx) + Math.abs(dy);
      if (pointers.size === 2) {
        const [a, b] = [...pointers.values()], now = Math.hypot(a[0] - b[0], a[1] - b[1]);
        if (spread) this.zoom(spread / now);
        spread = now;
        this.pan(dx / 2, dy / 2);
      } else if (event.buttons & 2 || event.shiftKey) this.pan(dx, dy);
      else this.turn(dx, dy);
    });
    const up = (event) => {
      pointers.delete(event.pointerId);
      spread = 0;
      if (event.type !== "pointerup" || moved > 4 || event.button !== 0) return;
      const box = canvas.getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top;
      if (this.picked) { this.pick(x, y); return; }
      const i = this.cameraAt(x, y);
      if (i >= 0) this.chose(i);
    };
    canvas.addEventListener("pointerup", up);
    canvas.addEventListener("pointercancel", up);
    canvas.addEventListener("pointerleave", () => this.hover(null));
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.zoom(Math.exp(Math.max(-120, Math.min(120, event.deltaY * (event.deltaMode ? 30 : 1))) * 0.0015));
    }, { passive: false });
  }

  hover(event) {
    const box = this.canvas.getBoundingClientRect();
    const i = event ? this.cameraAt(event.clientX - box.left, event.clientY - box.top) : -1;
    this.canvas.style.cursor = this.picked ? "crosshair" : i >= 0 ? "pointer" : "grab";
    if (this.hovered) this.hovered(i, event ? event.clientX - box.left : 0, event ? event.clientY - box.top : 0);
  }

  turn(dx, dy) {
    this.stand = null;
    const place = this.place, z = [0, 0, 1], speed = 0.006;
    let forward = V.turn(place.forward, z, -dx * speed), up = V.turn(place.up, z, -dx * speed);
    const right = V.unit(V.cross(forward, up));
    const tilted = V.turn(forward, right, -dy * speed);
    if (Math.abs(tilted[2]) < 0.995 || Math.abs(tilted[2]) < Math.abs(forward[2])) { forward = tilted; up = V.turn(up, right, -dy * speed); }
    this.place = { ...place, forward: V.unit(forward), up: V.unit(up) };
    this.draw();
  }

  pan(dx, dy) {
    this.stand = null;
    const place = this.place, s = (2 * place.distance * Math.tan(place.fov / 2)) / this.canvas.clientHeight;
    const right = V.cross(place.forward, place.up);
    this.place = { ...place, target: V.add(V.add(place.target, right, -dx * s), place.up, dy * s) };
    this.draw();
  }

  zoom(factor) {
    this.stand = null;
    this.place = { ...this.place, distance: Math.max(0.01, Math.min(30, this.place.distance * factor)) };
    this.draw();
  }

  // Measuring ----------------------------------------------------------------------------------------------------------

  startMeasuring() { this.setPicked(this.picked ? null : []); }

  stopMeasuring() { this.setPicked(null); }

  setPicked(points) {
    this.picked = points;
    if (this.measured) this.measured(points);
    this.draw();
  }

  /* Take the surface at a place of the window [css px] as the next end of the distance. */
  pick(x, y) {
    const { forward, up, fov } = this.place, right = V.cross(forward, up), f = this.canvas.clientHeight / (2 * Math.tan(fov / 2));
    const ray = V.unit(V.add(V.add(forward, right, (x - this.canvas.clientWidth / 2) / f), up, -(y - this.canvas.clientHeight / 2) / f));
    const o = this.options, point = this.surface.hit(this.eye(), ray, o.mesh, o.points, !o.backs, 6 / f);
    if (point) this.setPicked(this.picked.length === 1 ? [...this.picked, point] : [point]);
  }

  /* Draw the measured distance, and a bar of a round length at the distance of the centre. */
  paintMeasured() {
    const svg = document.getElementById("measured"), bar = document.getElementById("scalebar");
    const px = this.canvas.clientHeight / (2 * Math.tan(this.place.fov / 2)) / this.place.distance * this.data.scale; // of a scene unit
    const most = 140 / px, ten = 10 ** Math.floor(Math.log10(most)), round = [5, 2, 1].find((k) => k * ten <= most) * ten;
    bar.firstElementChild.style.width = `${round * px}px`;
    bar.lastElementChild.textContent = nasreconMaps.length(round, this.data.unit);
    svg.replaceChildren();
    const places = (this.picked || []).map((point) => this.project(point)).filter(Boolean);
    const draw = (tag, attributes) => {
      const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
      for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
      svg.append(node);
      return node;
    };
    if (places.length === 2) {
      const [[x1, y1], [x2, y2]] = places, length = Math.hypot(...V.add(this.picked[1], this.picked[0], -1)) / this.data.scale;
      draw("line", { x1, y1, x2, y2 });
      draw("text", { x: (x1 + x2) / 2 + 8, y: (y1 + y2) / 2 - 8 }).textContent = nasreconMaps.length(length, this.data.unit);
    }
    for (const [cx, cy] of places) draw("circle", { cx, cy, r: 4 });
  }
}
