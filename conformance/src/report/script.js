"use strict";
(() => {
  const cases = [...document.querySelectorAll("#cases > details")];
  const chips = [...document.querySelectorAll(".chip")];
  const search = document.getElementById("search");
  const shown = document.getElementById("shown");
  const texts = new Map(cases.map((row) => [row, row.textContent.toLowerCase()]));
  const update = () => {
    const off = new Set(chips.filter((chip) => chip.getAttribute("aria-pressed") === "false").map((chip) => chip.dataset.status));
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const row of cases) {
      const fits = !off.has(row.dataset.status) && words.every((word) => texts.get(row).includes(word));
      row.hidden = !fits;
      if (fits) count += 1;
    }
    shown.textContent = `${count} of ${cases.length}`;
  };
  for (const chip of chips) {
    chip.addEventListener("click", () => {
      const pressed = chip.getAttribute("aria-pressed") === "true";
      chip.setAttribute("aria-pressed", String(!pressed));
      update();
    });
  }
  search.addEventListener("input", update);
  const jump = () => {
    const row = document.getElementById(location.hash.slice(1));
    if (row && row.tagName === "DETAILS") { row.hidden = false; row.open = true; row.scrollIntoView(); }
  };
  addEventListener("hashchange", jump);
  update();
  jump();
})();
