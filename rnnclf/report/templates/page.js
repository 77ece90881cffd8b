"use strict";
(() => {
  const tip = document.getElementById("tip");
  const place = (x, y) => {
    const { width, height } = tip.getBoundingClientRect();
    const left = Math.min(Math.max(x - width / 2, 8), innerWidth - width - 8);
    const top = y - height - 14 < 8 ? y + 18 : y - height - 14;
    tip.style.left = `${left}px`;
    tip.style.top = `${top}px`;
  };
  const told = (event) => {
    const mark = event.target.closest?.("svg [aria-roledescription][aria-label]");
    tip.hidden = !mark || mark.tagName === "g";
    if (tip.hidden) return;
    tip.textContent = mark.getAttribute("aria-label");
    place(event.clientX, event.clientY);
  };
  document.addEventListener("pointermove", told);
  document.addEventListener("pointerdown", told);
  document.addEventListener("scroll", () => { tip.hidden = true; }, { passive: true });

  const compared = (a, b) => {
    const [x, y] = [a, b].map((cell) => cell.dataset.value);
    if (x !== undefined && y !== undefined) return Number(x) - Number(y);
    if (x !== undefined || y !== undefined) return x === undefined ? -1 : 1;
    return a.textContent.localeCompare(b.textContent, undefined, { numeric: true });
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const first = head.classList.contains("number") ? "descending" : "ascending";
        const other = first === "descending" ? "ascending" : "descending";
        const order = head.getAttribute("aria-sort") === first ? other : first;
        heads.forEach((each) => each.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", order);
        const sign = order === "ascending" ? 1 : -1;
        const rows = [...table.tBodies[0].rows];
        rows.sort((a, b) => sign * compared(a.cells[column], b.cells[column]));
        table.tBodies[0].append(...rows);
      });
    });
  }

  const ORDERS = {
    sure: (a, b) => b.dataset.probability - a.dataset.probability,
    unsure: (a, b) => a.dataset.probability - b.dataset.probability,
    label: (a, b) => a.dataset.label.localeCompare(b.dataset.label, undefined, { numeric: true }),
  };
  for (const gallery of document.querySelectorAll(".gallery")) {
    const [order, filter, shown] = [".order", ".filter", ".shown"].map((name) => gallery.querySelector(name));
    const list = gallery.querySelector(".mistakes");
    const all = [...list.children];
    const update = () => {
      list.append(...[...all].sort(ORDERS[order.value]));
      all.forEach((item) => { item.hidden = filter.value !== "" && item.dataset.label !== filter.value; });
      const left = all.filter((item) => !item.hidden).length;
      shown.textContent = left === all.length ? "" : `${left} of ${all.length}`;
    };
    order.addEventListener("change", update);
    filter.addEventListener("change", update);
    gallery.querySelector(".controls").hidden = false;
  }

  addEventListener("beforeprint", () => {
    document.querySelectorAll("details").forEach((each) => { each.open = true; });
  });
})();
