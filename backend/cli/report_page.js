// Turns the object with the pointer, steps through its growth, and reads values off the charts.
"use strict";

function showFrame(strip, index) {
  const count = Number(strip.dataset.count);
  strip.style.backgroundPosition = `${count > 1 ? (100 * index) / (count - 1) : 0}% 0`;
}

for (const stage of document.querySelectorAll(".hero .stage")) {
  const strip = stage.querySelector(".strip");
  const count = Number(strip.dataset.count);
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  let position = Number(strip.dataset.start), last = null, turning = !still;
  const draw = () => showFrame(strip, ((Math.round(position) % count) + count) % count);
  setInterval(() => { if (turning) { position += 1; draw(); } }, 90);
  stage.addEventListener("pointerdown", (event) => { last = event.clientX; turning = false; stage.setPointerCapture(event.pointerId); });
  stage.addEventListener("pointermove", (event) => {
    if (last === null) return;
    position -= ((event.clientX - last) / stage.clientWidth) * count * 0.8;
    last = event.clientX;
    draw();
  });
  stage.addEventListener("pointerup", () => { last = null; });
  stage.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (move) { turning = false; position += move; draw(); }
  });
}

for (const growth of document.querySelectorAll(".growth")) {
  const strip = growth.querySelector(".now .strip"), slider = growth.querySelector("input");
  const steps = JSON.parse(strip.dataset.steps), buttons = [...growth.querySelectorAll("button")];
  const show = (index) => {
    slider.value = index;
    showFrame(strip, index);
    growth.querySelector("output").textContent = `after step ${steps[index]}`;
    buttons.forEach((button) => button.classList.toggle("on", Number(button.dataset.frame) === index));
  };
  slider.addEventListener("input", () => show(Number(slider.value)));
  buttons.forEach((button) => button.addEventListener("click", () => show(Number(button.dataset.frame))));
  show(steps.length - 1);
}

for (const chart of document.querySelectorAll(".chart[data-readout]")) {
  const svg = chart.querySelector("svg"), cursor = chart.querySelector(".cursor"), output = chart.querySelector("output");
  const { x, y } = JSON.parse(chart.dataset.readout), first = Number(chart.dataset.first);
  const span = Math.max(Number(chart.dataset.last) - first, 1), { width } = svg.viewBox.baseVal, left = 50, right = 8;
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const step = first + ((((event.clientX - box.left) / box.width) * width - left) / (width - left - right)) * span;
    let nearest = 0;
    x.forEach((value, index) => { if (Math.abs(value - step) < Math.abs(x[nearest] - step)) nearest = index; });
    const at = left + ((x[nearest] - first) / span) * (width - left - right);
    cursor.setAttribute("x1", at);
    cursor.setAttribute("x2", at);
    cursor.style.visibility = "visible";
    output.textContent = `step ${x[nearest]}: ${y[nearest]}`;
  });
  svg.addEventListener("pointerleave", () => { cursor.style.visibility = "hidden"; output.textContent = ""; });
}
