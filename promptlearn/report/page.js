"use strict";
// Sorting: a click on a heading sorts by it, a second click the other way. What has no order stays last.
for (const head of document.querySelectorAll("th")) {
  head.querySelector("button").addEventListener("click", () => {
    const numeric = head.classList.contains("number");
    const first = numeric ? "descending" : "ascending";
    const other = numeric ? "ascending" : "descending";
    const way = head.getAttribute("aria-sort") === first ? other : first;
    for (const each of head.parentElement.children) each.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", way);
    const sign = way === "ascending" ? 1 : -1;
    const column = head.cellIndex;
    const body = head.closest("table").tBodies[0];
    const order = (row) => row.cells[column].dataset.order;
    const compare = (a, b) => {
      if (a === undefined || b === undefined) return (a === undefined) - (b === undefined);
      const difference = Number(a) - Number(b);
      return sign * (Number.isNaN(difference) ? a.localeCompare(b) : difference);
    };
    const rows = Array.from(body.rows).sort((a, b) => compare(order(a), order(b)));
    body.append(...rows);
  });
}
// Light or dark: the system's choice, until the button is pressed.
const root = document.documentElement;
const button = document.getElementById("theme");
button.hidden = false;
button.addEventListener("click", () => {
  const shown = root.dataset.theme || (window.matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  root.dataset.theme = shown === "dark" ? "light" : "dark";
});
