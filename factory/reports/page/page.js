"use strict";
const STEP = 48; // tiles that a gallery shows at first, and adds

function themes() {
  const button = document.getElementById("theme"), names = ["automatic", "light", "dark"];
  let chosen = "automatic";
  try { chosen = localStorage.getItem("theme") || chosen; } catch { /* not kept */ }
  function apply() {
    if (!names.includes(chosen)) chosen = "automatic";
    if (chosen === "automatic") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = chosen;
    button.textContent = `Theme: ${chosen}`;
  }
  button.hidden = false;
  button.addEventListener("click", () => {
    chosen = names[(names.indexOf(chosen) + 1) % names.length];
    try { localStorage.setItem("theme", chosen); } catch { /* not kept */ }
    apply();
  });
  apply();
}

function gallery(root) {
  const tiles = [...root.querySelectorAll(".tile")], grid = root.querySelector(".tiles");
  const filter = root.querySelector(".filter"), sort = root.querySelector(".sort");
  const more = root.querySelector("button.more"), count = root.querySelector(".count");
  const slider = root.querySelector(".slider");
  let limit = STEP;
  function show() {
    const sign = { up: 1, down: -1 }[sort.value] || 0;
    const order = sign
      ? [...tiles].sort((a, b) => sign * (a.dataset.order - b.dataset.order)) : tiles;
    const found = order.filter(
      (tile) => !filter.value || tile.dataset.classes.includes(` ${filter.value} `));
    const shown = new Set(found.slice(0, limit));
    grid.append(...order);
    for (const tile of order) tile.hidden = !shown.has(tile);
    count.textContent = `${shown.size} of ${found.length} shown`;
    more.hidden = shown.size === found.length;
  }
  for (const control of [filter, sort])
    control.addEventListener("change", () => { limit = STEP; show(); });
  more.addEventListener("click", () => { limit += STEP; show(); });
  slider.addEventListener("input", () => setMasks(slider.value));
  show();
}

function setMasks(value) {
  document.documentElement.style.setProperty("--mask", value / 100);
  for (const slider of document.querySelectorAll("input[type=range]")) slider.value = value;
}

function enlarging() {
  const dialog = document.getElementById("enlarged");
  const [picture, mask] = dialog.querySelectorAll("img");
  let group = [], at = 0;
  function show(step) {
    at = (at + step + group.length) % group.length;
    const tile = group[at];
    picture.src = tile.querySelector(".picture").src;
    const own = tile.querySelector(".mask");
    mask.hidden = !own;
    if (own) mask.src = own.src;
    picture.alt = dialog.querySelector(".name").textContent =
      tile.getAttribute("aria-label").replace(/: enlarge$/, "");
    dialog.querySelector("p.more").textContent = tile.dataset.details;
  }
  document.addEventListener("click", (event) => {
    const tile = event.target.closest(".tile");
    if (!tile) return;
    group = [...tile.closest(".tiles, .two").querySelectorAll(".tile:not([hidden])")];
    at = group.indexOf(tile);
    show(0);
    dialog.showModal();
    dialog.querySelector(".next").focus(); // on the slider, the arrow keys would move it
  });
  dialog.querySelector(".previous").addEventListener("click", () => show(-1));
  dialog.querySelector(".next").addEventListener("click", () => show(1));
  dialog.querySelector(".close").addEventListener("click", () => dialog.close());
  dialog.querySelector("input").addEventListener("input", (event) => setMasks(event.target.value));
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  dialog.addEventListener("keydown", (event) => {
    if (event.target.type === "range") return;
    if (event.key === "ArrowLeft") show(-1);
    if (event.key === "ArrowRight") show(1);
  });
}

function marking() {
  const links = new Map([...document.querySelectorAll("nav a")].map((a) => [a.hash.slice(1), a]));
  const observer = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      for (const link of links.values()) link.removeAttribute("aria-current");
      links.get(entry.target.getAttribute("aria-labelledby"))?.setAttribute("aria-current", "true");
    }
  }, { rootMargin: "0px 0px -70% 0px" });
  for (const section of document.querySelectorAll("main > section")) observer.observe(section);
}

themes();
for (const root of document.querySelectorAll(".gallery")) gallery(root);
enlarging();
marking();
