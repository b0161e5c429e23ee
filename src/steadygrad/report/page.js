
"use strict";
// Everything is readable without this script; it sorts tables, switches the theme, and reads off and zooms charts.
(() => {
  const make = (tag, words = "", attributes = {}) => {
    const element = document.createElement(tag);
    element.textContent = words;
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    return element;
  };
  const draw = (tag, attributes) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    return element;
  };
  const number = (value) => {
    if (value === 0 || !Number.isFinite(value)) return String(value);
    const size = Math.abs(value);
    return size >= 0.01 && size < 999.5 ? String(+value.toPrecision(3)) : value.toExponential(1).replace("+", "");
  };
  const numbers = (text) => text.split(" ").map((word) => (word === "-" ? null : word === "inf" ? Infinity : word === "-inf" ? -Infinity : Number(word)));

  // The theme: as the system has it, until the button is pressed.
  const root = document.documentElement;
  const dark = () => (root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const theme = make("button", "", { type: "button", class: "theme" });
  const name_theme = () => { theme.textContent = dark() ? "Light page" : "Dark page"; };
  theme.addEventListener("click", () => { root.dataset.theme = dark() ? "light" : "dark"; name_theme(); });
  name_theme();
  document.querySelector("header").append(theme);

  // Tables: a button in each column head; rows that are no numbers, and gaps, stay last.
  for (const table of document.querySelectorAll("table")) {
    const body = table.tBodies[0];
    if (body.rows.length < 2) continue;
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      const button = make("button", head.textContent, { type: "button" });
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const up = head.getAttribute("aria-sort") !== "ascending";
        for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        const numeric = head.classList.contains("number");
        const key = (row) => {
          const words = row.classList.contains("gap") ? null : row.cells[column].textContent;
          if (!numeric || words === null) return words;
          const value = Number.parseFloat(words.replaceAll(",", ""));
          return Number.isNaN(value) ? null : value;
        };
        const rows = [...body.rows].map((row) => [key(row), row]);
        rows.sort(([a], [b]) => {
          if (a === null || b === null) return (a === null) - (b === null);
          return (numeric ? a - b : a.localeCompare(b, "en", { numeric: true })) * (up ? 1 : -1);
        });
        body.append(...rows.map(([, row]) => row));
      });
    });
  }

  // Courses: one view of the steps for all panels of a figure.
  const spread = (low, high) => {
    const unit = 10 ** Math.floor(Math.log10((high - low) / 4));
    const step = [1, 2, 5, 10].map((m) => m * unit).find((size) => (high - low) / size <= 5);
    return Array.from({ length: 8 }, (_, i) => (Math.ceil(low / step) + i) * step).filter((level) => level <= high);
  };
  const ticks = (low, high, log) => {
    if (!log) return spread(low, high).map((level) => [level, number(level)]);
    if (high - low < 1.5) return spread(10 ** low, 10 ** high).map((value) => [Math.log10(value), number(value)]);
    const stride = Math.ceil((high - low) / 6), first = Math.ceil(low / stride) * stride;
    return Array.from({ length: Math.floor((high - first) / stride) + 1 }, (_, i) => [first + i * stride, `1e${first + i * stride}`]);
  };

  class Panel {
    constructor(svg) {
      this.svg = svg;
      [this.left, this.top, this.right, this.bottom] = svg.dataset.box.split(" ").map(Number);
      this.log = svg.dataset.log === "1";
      this.whole = svg.cloneNode(true);
      this.lines = [...svg.querySelectorAll("path[data-y]")].map((path) => ({
        label: path.dataset.label, x: numbers(path.dataset.x), y: numbers(path.dataset.y),
      }));
    }
    at(step, [low, high]) { return this.left + ((step - low) / (high - low || 1)) * (this.right - this.left); }
    step(clientX, [low, high]) {
      const box = this.svg.getBoundingClientRect(), unit = box.width / this.svg.viewBox.baseVal.width;
      const share = ((clientX - box.left) / unit - this.left) / (this.right - this.left);
      return low + Math.min(Math.max(share, 0), 1) * (high - low);
    }
    restore() { this.svg.replaceChildren(...this.whole.cloneNode(true).childNodes); }
    show(view, whole) {
      this.restore();
      const levels = this.lines.flatMap(({ x, y }) => y.filter((v, i) => x[i] >= view[0] && x[i] <= view[1] && Number.isFinite(v) && v !== null && (v > 0 || !this.log)))
        .map((v) => (this.log ? Math.log10(v) : v));
      let low = levels.reduce((a, b) => Math.min(a, b), Infinity), high = levels.reduce((a, b) => Math.max(a, b), -Infinity);
      if (!levels.length) [low, high] = [0, 1];
      const margin = (high - low) * 0.06 || Math.abs(high) / 20 || 0.5;
      [low, high] = [low - margin, high + margin];
      const place = (level) => this.bottom - ((level - low) / (high - low)) * (this.bottom - this.top);
      this.svg.querySelectorAll("path[data-y]").forEach((path, k) => this.line(path, this.lines[k], view, place));
      this.grid(ticks(low, high, this.log), place, view);
      for (const mark of this.svg.querySelectorAll("path.sg-mark")) {
        const at = whole[0] + mark.dataset.at * (whole[1] - whole[0]);
        mark.setAttribute("d", `M${this.at(at, view)} ${this.top - 14}V${this.bottom}`);
        if (at < view[0] || at > view[1]) mark.remove();
      }
    }
    line(path, { x, y }, view, place) {
      let d = "", crosses = "", down = false;
      x.forEach((step, i) => {
        if (step < view[0] || step > view[1]) return;
        const value = y[i], at = this.at(step, view).toFixed(1);
        if (value === null || !Number.isFinite(value) || (this.log && value <= 0)) {
          if (value !== null && !Number.isFinite(value)) crosses += `M${at - 4} ${this.top}l8 8m0 -8l-8 8`;
          down = false;
          return;
        }
        d += `${down ? "L" : "M"}${at} ${place(this.log ? Math.log10(value) : value).toFixed(1)}${down ? "" : "h0"}`;
        down = true;
      });
      path.setAttribute("d", d);
      path.parentNode.replaceChildren(path, draw("path", { d: crosses, stroke: path.getAttribute("stroke") }));
    }
    grid(marks, place, view) {
      const parts = [];
      const text = (words, attributes) => { const t = draw("text", attributes); t.textContent = words; parts.push(t); };
      for (const [level, label] of marks) {
        parts.push(draw("path", { d: `M${this.left} ${place(level)}H${this.right}`, stroke: "currentColor", "stroke-opacity": 0.15 }));
        text(label, { x: this.left - 7, y: place(level) + 4, "text-anchor": "end" });
      }
      parts.push(draw("path", { d: `M${this.left} ${this.bottom}H${this.right}`, stroke: "currentColor", "stroke-opacity": 0.6 }));
      text(`step ${Math.round(view[0]).toLocaleString("en")}`, { x: this.left, y: this.bottom + 20 });
      text(`step ${Math.round(view[1]).toLocaleString("en")}`, { x: this.right, y: this.bottom + 20, "text-anchor": "end" });
      this.svg.querySelector(".sg-grid").replaceChildren(...parts);
    }
    read(step) {
      return this.lines.map(({ label, x, y }) => {
        let best = -1;
        x.forEach((at, i) => { if (y[i] !== null && (best < 0 || Math.abs(at - step) < Math.abs(x[best] - step))) best = i; });
        return best < 0 ? `${label} not seen` : `${label} ${number(y[best])}`;
      });
    }
    cursor(step, view) {
      this.svg.querySelector(".sg-cursor")?.remove();
      const at = this.at(step, view);
      this.svg.append(draw("path", { class: "sg-cursor", d: `M${at} ${this.top}V${this.bottom}` }));
    }
  }

  for (const figure of document.querySelectorAll("figure:has(svg.sg-zoom)")) {
    const panels = [...figure.querySelectorAll("svg.sg-zoom")].map((svg) => new Panel(svg));
    const whole = panels[0].svg.dataset.steps.split(" ").map(Number);
    let view = whole;
    const slider = make("input", "", { type: "range", min: whole[0], max: whole[1], step: "any" });
    slider.value = whole[1];
    const said = make("output");
    const tell = (step) => {
      slider.value = step;
      panels.forEach((panel) => panel.cursor(step, view));
      const words = panels.flatMap((panel) => panel.read(step));
      said.textContent = `step ${Math.round(step).toLocaleString("en")}: ${words.slice(0, 8).join(" · ")}`;
    };
    const show = (low, high) => {
      const span = Math.min(Math.max(high - low, 2), whole[1] - whole[0]);
      const start = Math.min(Math.max(low, whole[0]), whole[1] - span);
      view = [start, start + span];
      slider.min = view[0];
      slider.max = view[1];
      const all = span === whole[1] - whole[0];
      panels.forEach((panel) => (all ? panel.restore() : panel.show(view, whole)));
      tell(Math.min(Math.max(Number(slider.value), view[0]), view[1]));
    };
    const zoom = (factor) => {
      const half = ((view[1] - view[0]) * factor) / 2, middle = Number(slider.value);
      show(middle - half, middle + half);
    };
    const label = make("label", "Read at step ");
    label.append(slider);
    const bar = make("div", "", { class: "sg-bar" });
    bar.append(label);
    for (const [words, act] of [["Zoom in", () => zoom(0.5)], ["Zoom out", () => zoom(2)], ["Whole run", () => show(...whole)]]) {
      const button = make("button", words, { type: "button" });
      button.addEventListener("click", act);
      bar.append(button);
    }
    bar.append(said);
    figure.querySelector(".sg-panels").before(bar);
    slider.addEventListener("input", () => tell(Number(slider.value)));
    for (const panel of panels) {
      let from = null;
      panel.svg.addEventListener("pointerdown", (event) => { from = panel.step(event.clientX, view); });
      panel.svg.addEventListener("pointermove", (event) => {
        const step = panel.step(event.clientX, view);
        tell(step);
        if (from === null) return;
        const [a, b] = [from, step].sort((p, q) => p - q).map((s) => panel.at(s, view));
        panel.svg.append(draw("rect", { class: "sg-cursor", x: a, y: panel.top, width: b - a, height: panel.bottom - panel.top, "fill-opacity": 0.12 }));
        panel.svg.querySelector("path.sg-cursor")?.remove();
      });
      panel.svg.addEventListener("pointerleave", () => { from = null; });
      panel.svg.addEventListener("pointerup", (event) => {
        const start = from, step = panel.step(event.clientX, view);
        from = null;
        if (start !== null && Math.abs(panel.at(step, view) - panel.at(start, view)) > 8) show(Math.min(start, step), Math.max(start, step));
      });
      panel.svg.addEventListener("dblclick", () => show(...whole));
    }
  }

  // Heat maps: read off by pointer, or by layer and step.
  for (const svg of document.querySelectorAll("svg.sg-heat")) {
    const [left, top, right, row] = svg.dataset.box.split(" ").map(Number);
    const edges = numbers(svg.dataset.edges);
    const rows = [...svg.querySelectorAll(".sg-row")].map((text) => [text.querySelector("title").textContent, numbers(text.dataset.y)]);
    const width = (right - left) / (edges.length - 1);
    const layer = make("select");
    rows.forEach(([name], place) => layer.append(make("option", name, { value: place })));
    const slider = make("input", "", { type: "range", min: 0, max: edges.length - 2 });
    const said = make("output");
    const ring = draw("rect", { class: "sg-cursor", width: Math.max(width, 4), height: row, "fill-opacity": 0 });
    const tell = (place, column) => {
      layer.value = place;
      slider.value = column;
      ring.setAttribute("x", left + column * width);
      ring.setAttribute("y", top + place * row);
      svg.append(ring);
      const value = rows[place][1][column], last = edges[column + 1] - 1;
      const steps = last > edges[column] ? `steps ${edges[column]} to ${last}` : `step ${last}`;
      const words = value === null ? "not seen" : Number.isFinite(value) ? number(value) : "not finite";
      said.textContent = `${rows[place][0]}, ${steps}: ${words}`;
    };
    const again = () => tell(Number(layer.value), Number(slider.value));
    layer.addEventListener("input", again);
    slider.addEventListener("input", again);
    svg.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect(), unit = box.width / svg.viewBox.baseVal.width;
      const column = Math.floor(((event.clientX - box.left) / unit - left) / width);
      const place = Math.floor(((event.clientY - box.top) / unit - top) / row);
      if (place >= 0 && place < rows.length && column >= 0 && column < edges.length - 1) tell(place, column);
    });
    const bar = make("div", "", { class: "sg-bar" });
    for (const [words, control] of [["Layer ", layer], ["Step ", slider]]) {
      const label = make("label", words);
      label.append(control);
      bar.append(label);
    }
    bar.append(said);
    svg.parentNode.before(bar);
  }
})();
