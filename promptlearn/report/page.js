"use strict";
const all = (selector, within = document) => Array.from(within.querySelectorAll(selector));
const root = document.documentElement;
// A click on a heading sorts by it, a second click reverses the order. Cells without an order stay last.
for (const head of all("th")) {
  head.querySelector("button").addEventListener("click", () => {
    const numeric = head.classList.contains("number");
    const first = numeric ? "descending" : "ascending";
    const second = numeric ? "ascending" : "descending";
    const direction = head.getAttribute("aria-sort") === first ? second : first;
    for (const each of head.parentElement.children) each.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", direction);
    const sign = direction === "ascending" ? 1 : -1;
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
    for (const row of rows) row.classList.remove("rule"); // the datasets are mixed now
  });
}
// Light or dark as the system prefers, until the button is pressed.
const theme = document.getElementById("theme");
theme.hidden = false;
theme.addEventListener("click", () => {
  const shown = root.dataset.theme || (window.matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  root.dataset.theme = shown === "dark" ? "light" : "dark";
});
// A menu of the bar closes after a choice, with Escape, and by a click elsewhere.
const menus = all("nav details");
const close = (but) => menus.forEach((menu) => { if (menu !== but) menu.open = false; });
document.addEventListener("keydown", (event) => { if (event.key === "Escape") close(); });
document.addEventListener("click", (event) => {
  close(event.target.closest("nav a") ? null : event.target.closest("nav details"));
});
const unfold = () => {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  const folded = target && (target.closest("details") || target.querySelector(":scope > details"));
  if (folded) folded.open = true;
};
window.addEventListener("hashchange", unfold);
unfold();
// The filter leaves out rows, figures, and marks in figures whose dataset, method, or shots is not chosen.
const cells = all("tbody tr").map((row) => {
  const heads = all("th", row.closest("table")).map((head) => head.textContent);
  const text = (name) => row.cells[heads.indexOf(name)]?.firstElementChild?.matches("i")
    ? row.cells[heads.indexOf(name)].lastChild.textContent.trim() : row.cells[heads.indexOf(name)]?.textContent.trim();
  return { element: row, dataset: text("dataset"), method: text("method"), shots: text("shots") };
});
const marks = all("[data-dataset], [data-method]").map((element) => ({ element, ...element.dataset }));
const form = document.querySelector("#filter form");
const filter = () => {
  const off = {};
  for (const set of all("fieldset", form)) {
    off[set.name] = new Set(all("input:not(:checked)", set).map((input) => input.value));
  }
  for (const { element, ...own } of [...cells, ...marks]) {
    element.classList.toggle("off", Object.keys(off).some((name) => off[name].has(own[name])));
  }
  document.getElementById("filter").classList.toggle("active", Object.values(off).some((set) => set.size));
};
document.getElementById("filter").hidden = !form.querySelector("fieldset");
form.addEventListener("change", filter);
form.addEventListener("reset", () => setTimeout(filter));
// Downloads: a table as it is shown, a figure in the light colors.
const save = (name, url) => Object.assign(document.createElement("a"), { download: name, href: url }).click();
const saveText = (name, text) => save(name, "data:text/plain;charset=utf-8," + encodeURIComponent(text));
const offer = (place, forms) => {
  const bar = document.createElement("p");
  bar.className = "save";
  for (const [label, action] of Object.entries(forms)) {
    const button = Object.assign(document.createElement("button"), { type: "button", textContent: label });
    button.addEventListener("click", action);
    bar.append(button);
  }
  place.after(bar);
};
const drawing = (svg) => {
  const copy = svg.cloneNode(true);
  for (const element of all(".off", copy)) element.remove();
  const [, , width, height] = copy.getAttribute("viewBox").split(" ");
  copy.removeAttribute("style");
  copy.setAttribute("width", width + "pt");
  copy.setAttribute("height", height + "pt");
  copy.setAttribute("font-family", "Helvetica, Arial, sans-serif");
  return new XMLSerializer().serializeToString(copy).replace(/var\(--\w+, (#\w+)\)/g, "$1");
};
for (const figure of all("figure")) {
  const svg = figure.querySelector("svg");
  offer(svg.parentElement, {
    SVG: () => saveText(figure.id + ".svg", drawing(svg)),
    PNG: () => {
      const image = new Image();
      image.onload = () => {
        const canvas = Object.assign(document.createElement("canvas"), { width: 3 * image.width, height: 3 * image.height });
        const paint = canvas.getContext("2d");
        paint.fillStyle = "#ffffff";
        paint.fillRect(0, 0, canvas.width, canvas.height);
        paint.drawImage(image, 0, 0, canvas.width, canvas.height);
        save(figure.id + ".png", canvas.toDataURL());
      };
      image.src = "data:image/svg+xml;charset=utf-8," + encodeURIComponent(drawing(svg));
    },
  });
}
const TEX = { "\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "±": "$\\pm$", "−": "$-$" };
const tex = (text) => text.replace(/[\\~^±−&%$#_{}]/g, (letter) => TEX[letter] || "\\" + letter);
const quoted = (text) => /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
const content = (cell) => cell.textContent.trim().replace(/\s+/g, " ");
for (const table of all("table")) {
  const heads = all("th", table);
  const rows = () => Array.from(table.tBodies[0].rows).filter((row) => !row.classList.contains("off"));
  const line = (row, form) => Array.from(row.cells).map(form);
  const name = table.caption.textContent.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "-");
  offer(table.parentElement, {
    CSV: () => {
      const lines = [heads, ...rows().map((row) => Array.from(row.cells))].map((row) => row.map((cell) => quoted(content(cell))));
      saveText(name + ".csv", lines.map((cells) => cells.join(",") + "\n").join(""));
    },
    LaTeX: () => {
      const cell = (each) => each.querySelector("b") ? tex(content(each)).replace(/^\S+/, "\\textbf{$&}") : tex(content(each));
      const columns = heads.map((head) => head.classList.contains("number") ? "r" : "l").join("");
      const body = rows().map((row) => (row.classList.contains("rule") ? "\\midrule\n" : "") + line(row, cell).join(" & ") + " \\\\\n");
      saveText(name + ".tex", `\\begin{tabular}{${columns}}\n\\toprule\n${heads.map(cell).join(" & ")} \\\\\n\\midrule\n`
        + `${body.join("")}\\bottomrule\n\\end{tabular}\n`);
    },
  });
}
