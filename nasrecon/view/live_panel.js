"use strict";
/* The panels of the live page: paints the maps of the chosen view with maps.js, enlarges them, and goes to the view of a
   row of the quality table. The page's server answers its own widgets only, so a click here uses one of them. */

window.nasreconPanel = window.nasreconPanel || (() => {
  const BAR = "display:flex;justify-content:space-between;font-size:11px;opacity:.8";
  const press = (label) => [...document.querySelectorAll("button")].find((button) => button.textContent === label)?.click();
  let about = null, current = null, root = null;

  /* Write a view's name into the text field "Go to". */
  function goTo(name) {
    let box = [...document.querySelectorAll("label")].find((label) => label.textContent === "Go to");
    while (box && !box.querySelector("input")) box = box.parentElement;
    if (!box) return;
    const input = box.querySelector("input");
    Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, "value").set.call(input, name);
    input.dispatchEvent(new Event("input", { bubbles: true }));
  }

  /* Paint the view of a panel that has just come; image: the element whose loading said so. */
  function paint(image) {
    root = image.parentElement;
    const { view, page } = JSON.parse(root.dataset.view);
    about ??= {
      step: (by) => press(by > 0 ? "Next" : "Previous"), rescaled: repaint, gradient: page.gradient, ball: page.ball,
      palette: Uint8Array.from(atob(page.palette), (letter) => letter.charCodeAt(0)),
    };
    Object.assign(about, { near: page.near, far: page.far, unit: page.unit });
    current = view;
    for (const figure of root.querySelectorAll("figure[data-kind]")) {
      const map = figure.querySelector(".map"), kind = figure.dataset.kind;
      map.onclick = () => nasreconMaps.open(view, kind, about);
      if (map.tagName === "CANVAS") nasreconMaps.paint(map, view, kind, about);
    }
    root.querySelector("select").onchange = (event) => { nasreconMaps.setScale(event.target.value); repaint(); };
    repaint();
    if (nasreconMaps.isOpen()) nasreconMaps.open(view, nasreconMaps.kind(), about);
  }

  /* Paint the depths in the scale that is chosen now. */
  function repaint() {
    const figure = root.querySelector("figure[data-kind=depth]"), marks = document.createElement("div");
    root.querySelector("select").value = nasreconMaps.scale();
    nasreconMaps.paint(figure.querySelector("canvas"), current, "depth", about);
    marks.style.cssText = BAR;
    for (const text of nasreconMaps.depthMarks(current, about, 4)) {
      const mark = document.createElement("span");
      mark.textContent = text;
      marks.append(mark);
    }
    figure.querySelector(".marks").replaceChildren(marks);
  }

  return { paint, goTo };
})();
