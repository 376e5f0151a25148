(function () {
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const root = document.documentElement;
const find = (selector, from) => (from || document).querySelector(selector);
const all = (selector, from) => [...(from || document).querySelectorAll(selector)];
const several = data.audits.length > 1;
const called = (split) => data.audits.length ? split : "answers";  // saved answers are of no split
const calm = matchMedia("(prefers-reduced-motion: reduce)");
const KINDS = { knockoff: "knockoff", ls: "label smoothing", placebo: "placebo" };
const SHAPES = ["circle", "square", "diamond", "triangle-up", "cross", "star"];
const OUTCOMES = {
  "leaks": { colour: "--leaks", shape: "triangle-up" },
  "no leak found": { colour: "--none", shape: "circle" },
  "inconclusive": { colour: "--open", shape: "diamond" },
  "attack too weak": { colour: "--weak", shape: "circle-open" },
};
let printing = false;

// Words and numbers. Plotly reads some markup in labels, so every name is escaped for it.
const plain = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
const signed = (value) => {
  const size = Math.abs(value).toFixed(2);
  return (value < 0 && size !== "0.00" ? "−" : "+") + size;
};
const short = (value) => value == null ? "–" : Number(value.toPrecision(3)).toString();
const cut = (text, length) => text.length > length ? text.slice(0, length - 1) + "…" : text;
const colour = (name) => getComputedStyle(root).getPropertyValue(name).trim();
const tone = (place) => colour("--c" + place % 6);
const shape = (place) => SHAPES[place % SHAPES.length];
const see_through = (hex, alpha) => hex + Math.round(alpha * 255).toString(16).padStart(2, "0");

function element(tag, attributes, ...children) {
  const made = tag.startsWith("svg:")
    ? document.createElementNS("http://www.w3.org/2000/svg", tag.slice(4)) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

// Figures: each knows how to draw itself at its present width, and its numbers as rows.
const figures = {};
const drawn = new Set();

function draw(name) {
  const figure = figures[name], place = find("#plot-" + name);
  if (!figure || !place) return;
  figure.draw(place);
  drawn.add(name);
  place.dataset.drawn = "yes";
}

// Plotly takes a second or two to compile, so that it is kept as text until the page stands and a figure needs it.
function load_plotly() {
  if (!window.Plotly) document.head.append(element("script", {}, find("#plotly").textContent));
}

function chart(place, traces, layout, height) {
  load_plotly();
  const ink = colour("--ink"), soft = colour("--soft"), line = colour("--line");
  const width = printing ? Math.min(660, place.clientWidth) : place.clientWidth;
  const axes = {};
  for (const [name, axis] of Object.entries(layout)) {
    if (/^[xy]axis/.test(name)) {
      axes[name] = {
        gridcolor: line, zerolinecolor: line, linecolor: line, tickcolor: line, zeroline: false, automargin: true,
        ticks: "outside", ticklen: 4, fixedrange: true, ...axis,
        title: axis.title ? { text: axis.title, font: { size: 13, color: soft }, standoff: 8 } : undefined,
      };
    }
  }
  return Plotly.react(place, traces, {
    width, height, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", dragmode: false, showlegend: false,
    font: { family: getComputedStyle(document.body).fontFamily, size: 12.5, color: ink }, hovermode: "closest",
    hoverlabel: { bgcolor: ink, bordercolor: ink, font: { color: colour("--bg"), size: 12.5 }, align: "left", namelength: -1 },
    margin: { l: 12, r: 12, t: 12, b: 12 }, ...layout, ...axes,
    annotations: (layout.annotations || []).map((note) => ({ showarrow: false, font: { size: 12, color: soft }, ...note })),
  }, { displayModeBar: false, responsive: false });
}

// Ticks of a logarithmic axis at 1, 2 and 5 of each decade, or at decades where these are many.
function log_axis(low, high) {
  const decades = Math.log10(high / low), steps = decades > 2.5 ? [1] : [1, 2, 5], tickvals = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++) for (const step of steps) {
    const value = step * 10 ** power;
    if (value >= low * 0.999 && value <= high * 1.001) tickvals.push(value);
  }
  return { type: "log", range: [Math.log10(low), Math.log10(high)], tickvals, ticktext: tickvals.map((value) => short(value)) };
}

const narrow = (place) => (printing ? 660 : place.clientWidth) < 620;
const heading = (text, axis, y) => ({
  text: "<b>" + plain(text) + "</b>", xref: axis + " domain", yref: y || "paper", x: 0, y: 1, xanchor: "left", yanchor: "bottom",
  yshift: 4, font: { size: 13, color: colour("--ink") },
});

// Hints, for the mouse and for the keyboard.
const tip = find("#tip");
function show_tip(text, x, y) {
  const [first, ...rest] = text;
  tip.replaceChildren(element("b", {}, first), rest.join("\n"));
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  tip.style.left = Math.max(8, Math.min(x + 14, innerWidth - box.width - 8)) + "px";
  tip.style.top = (y + 18 + box.height > innerHeight ? Math.max(8, y - box.height - 14) : y + 18) + "px";
}
const hide_tip = () => { tip.hidden = true; };
document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide_tip(); });
document.addEventListener("scroll", hide_tip, { passive: true });

// Leak matrix.
const cell_name = (cell) => cell.attack + " with " + cell.student + (cell.data ? ", " + cell.data : "")
  + (several ? ", " + data.audits[cell.audit].label : "");
function cell_words(cell) {
  const control = cell[cell.control];
  return [
    cell_name(cell),
    cell.outcome + ": " + signed(cell.leak.mean) + " points [" + signed(cell.leak.low) + ", " + signed(cell.leak.high) + "]",
    ...(cell.leak.test_low == null ? [] : [
      "over other test images: [" + signed(cell.leak.test_low) + ", " + signed(cell.leak.test_high) + "]",
    ]),
    "knockoffs by seed: " + cell.knockoff.seeds.map((value) => value.toFixed(2)).join(", ") + "%"
      + (cell.knockoff.setting ? " (" + cell.knockoff.setting + ")" : ""),
    "control: " + KINDS[cell.control] + " " + control.mean.toFixed(2) + "%" + (control.setting ? " (" + control.setting + ")" : ""),
    "queries: " + cell.queries.toLocaleString("en") + "; agreement with the teacher " + cell.agreement.toFixed(2) + "%",
  ];
}
let chosen = data.cells.reduce((best, cell, place) => cell.leak.mean > data.cells[best].leak.mean ? place : best, 0);
const cell_buttons = all("button[data-cell]");
for (const button of cell_buttons) {
  const place = Number(button.dataset.cell);
  button.setAttribute("aria-pressed", String(place === chosen));
  button.addEventListener("pointermove", (event) => show_tip(cell_words(data.cells[place]), event.clientX, event.clientY));
  button.addEventListener("pointerleave", hide_tip);
  button.addEventListener("focus", () => {
    const box = button.getBoundingClientRect();
    if (button.matches(":focus-visible")) show_tip(cell_words(data.cells[place]), box.left, box.bottom - 12);
  });
  button.addEventListener("blur", hide_tip);
  button.addEventListener("click", () => {
    chosen = place;
    for (const other of cell_buttons) other.setAttribute("aria-pressed", String(other === button));
    hide_tip();
    draw("students");
    refill("students");
    const box = find("#figure-students").getBoundingClientRect();
    if (box.top > innerHeight - 160) find("#figure-students").scrollIntoView({ block: "nearest" });
  });
  button.addEventListener("keydown", (event) => {
    const steps = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[event.key];
    if (!steps) return;
    const cell = button.parentElement, row = cell.parentElement;
    const line = steps[0] ? (steps[0] > 0 ? row.nextElementSibling : row.previousElementSibling) : row;
    const next = line && line.cells[cell.cellIndex + steps[1]];
    const target = next && find("button", next);
    if (target) { event.preventDefault(); target.focus(); }
  });
}
figures.matrix = {
  draw() {},
  rows() {
    return [
      ["audit", "attack", "student", "data", "outcome", "leak", "low", "high", "test_low", "test_high", "p", "detectable",
        "control", "knockoff", "ls", "placebo", "agreement", "queries", "knockoff seeds", "ls seeds", "placebo seeds", "setting"],
      ...data.cells.map((cell) => [
        data.audits[cell.audit].label, cell.attack, cell.student, cell.data || "", cell.outcome, cell.leak.mean, cell.leak.low,
        cell.leak.high, cell.leak.test_low, cell.leak.test_high, cell.leak.p, cell.leak.detectable, cell.control,
        cell.knockoff.mean, cell.ls.mean, cell.placebo ? cell.placebo.mean : "", cell.agreement, cell.queries, cell.knockoff.seeds.join(" "),
        cell.ls.seeds.join(" "), cell.placebo ? cell.placebo.seeds.join(" ") : "", cell.knockoff.setting,
      ]),
    ];
  },
};

// The students of the chosen cell.
const kinds_of = (cell) => Object.keys(KINDS).filter((kind) => cell[kind]);
figures.students = {
  draw(place) {
    const cell = data.cells[chosen], kinds = kinds_of(cell);
    const words = cell_words(cell);
    find("#chosen").replaceChildren(element("b", {}, words[0]), " – " + words[1] + ".");
    const curves = kinds.filter((kind) => cell.curves[kind] != null).map((kind) => [kind, data.curves[cell.curves[kind]]]);
    const column = narrow(place) && curves.length, traces = [];
    const hue = (kind) => tone(Object.keys(KINDS).indexOf(kind));
    const mark = (kind) => shape(Object.keys(KINDS).indexOf(kind));
    // Paired seeds are joined by thin lines, so that one sees whether knockoffs win seed by seed.
    for (let seed = 0; seed < cell.knockoff.seeds.length; seed++) {
      traces.push({
        x: kinds.map((_, at) => at), y: kinds.map((kind) => cell[kind].seeds[seed]), mode: "lines", hoverinfo: "skip",
        line: { color: see_through(colour("--soft"), 0.35), width: 1 }, xaxis: "x", yaxis: "y",
      });
    }
    kinds.forEach((kind, at) => traces.push({
      x: cell[kind].seeds.map(() => at), y: cell[kind].seeds, mode: "markers", xaxis: "x", yaxis: "y",
      marker: { color: hue(kind), symbol: mark(kind), size: 8, line: { color: colour("--card"), width: 1 } },
      text: cell[kind].seeds.map((_, seed) => "seed " + seed),
      hovertemplate: plain(KINDS[kind]) + ", %{text}: %{y:.2f}%<extra></extra>",
    }, {
      x: [at - 0.28, at + 0.28], y: [cell[kind].mean, cell[kind].mean], mode: "lines", xaxis: "x", yaxis: "y",
      line: { color: hue(kind), width: 3 }, hovertemplate: "mean of " + plain(KINDS[kind]) + ": %{y:.2f}%<extra></extra>",
    }));
    for (const [kind, curve] of curves) {
      traces.push({
        x: [...curve.epochs, ...[...curve.epochs].reverse()], y: [...curve.highest, ...[...curve.lowest].reverse()],
        fill: "toself", fillcolor: see_through(hue(kind), 0.15), line: { width: 0 }, mode: "lines", hoverinfo: "skip",
        xaxis: "x2", yaxis: "y2",
      }, {
        x: curve.epochs, y: curve.accuracy, mode: "lines+markers", line: { color: hue(kind), width: 2 }, xaxis: "x2", yaxis: "y2",
        marker: { symbol: mark(kind), size: 6, maxdisplayed: 8 },
        hovertemplate: plain(KINDS[kind]) + ", epoch %{x}: %{y:.2f}%<extra></extra>",
      }, {
        x: curve.epochs, y: curve.loss, mode: "lines+markers", line: { color: hue(kind), width: 2 }, xaxis: "x3", yaxis: "y3",
        marker: { symbol: mark(kind), size: 6, maxdisplayed: 8 },
        hovertemplate: plain(KINDS[kind]) + ", epoch %{x}: %{y:.3g} nats<extra></extra>",
      });
    }
    const losses = curves.flatMap(([, curve]) => curve.loss), least = Math.min(...losses), most = Math.max(...losses);
    const grown = curves.length > 0;
    const layout = {
      grid: grown ? (column ? { rows: 3, columns: 1, pattern: "independent", ygap: 0.3 } : { rows: 1, columns: 3, pattern: "independent", xgap: 0.2 }) : undefined,
      margin: { l: 12, r: 12, t: 30, b: 12 },
      xaxis: { tickvals: kinds.map((_, at) => at), ticktext: kinds.map((kind) => ({ ls: "LS" }[kind] || kind)), range: [-0.5, kinds.length - 0.5], showgrid: false },
      yaxis: { title: "%" },
      annotations: [heading("Test accuracy by seed", "x", "y domain")],
    };
    if (grown) {
      Object.assign(layout, { xaxis2: { title: "epoch" }, yaxis2: { title: "%" }, xaxis3: { title: "epoch" }, yaxis3: { title: "nats", ...(least > 0 ? log_axis(least / 1.15, most * 1.15) : {}) } });
      layout.annotations.push(heading("Training accuracy", "x2", "y2 domain"), heading("Loss (of each its own)", "x3", "y3 domain"));
    } else {
      layout.annotations.push({ text: "No trials are stored beside this audit, so there are no learning curves.", xref: "paper", yref: "paper", x: 0.5, y: 0, yanchor: "top", yshift: -28 });
      layout.margin.b = 56;
    }
    chart(place, traces, layout, column ? 760 : 300);
  },
  rows() {
    const cell = data.cells[chosen], rows = [["students", "kind of number", "seed or epoch", "value", "lowest", "highest"]];
    for (const kind of kinds_of(cell)) {
      cell[kind].seeds.forEach((value, seed) => rows.push([KINDS[kind], "test accuracy", seed, value, "", ""]));
      const curve = cell.curves[kind] == null ? null : data.curves[cell.curves[kind]];
      if (curve) curve.epochs.forEach((epoch, at) => rows.push(
        [KINDS[kind], "train accuracy", epoch, curve.accuracy[at], curve.lowest[at], curve.highest[at]],
        [KINDS[kind], "loss", epoch, curve.loss[at], "", ""]));
    }
    return rows;
  },
};

// Forest plot.
const unique = (values) => [...new Set(values)];
const cell_row = (cell) => [cell.attack, cell.student, cell.data].join("\u0000");
function fill_students(select, most) {
  const students = unique(data.cells.map((cell) => cell.student));
  select.append(...(students.length > 1 ? [element("option", { value: "" }, "all students")] : []),
    ...students.map((student) => element("option", { value: student }, student)));
  if (students.length > 1 && unique(data.cells.map(cell_row)).length > most) select.value = students[0];
  if (students.length < 2) select.closest(".controls").hidden = true;
}
const forest_student = find("#forest-student");
if (forest_student) fill_students(forest_student, 40);
const forest_cells = () => data.cells.filter((cell) => !forest_student.value || cell.student === forest_student.value);
figures.forest = {
  draw(place) {
    const cells = forest_cells(), largest = {};
    for (const cell of cells) largest[cell_row(cell)] = Math.max(largest[cell_row(cell)] ?? -Infinity, cell.leak.mean);
    const rows = Object.keys(largest).sort((a, b) => largest[a] - largest[b]);
    const height_of_row = several ? 14 + 11 * data.audits.length : 25, at = Object.fromEntries(rows.map((row, index) => [row, index]));
    const with_student = unique(cells.map((cell) => cell.student)).length > 1, with_data = unique(cells.map((cell) => cell.data)).length > 1;
    const label = (row) => { const [attack, student, regime] = row.split("\u0000"); return [attack, with_student && student, with_data && regime].filter(Boolean).join(" · "); };
    const length = narrow(place) ? 22 : 44;
    const traces = data.audits.map((audit, index) => {
      const own = cells.filter((cell) => cell.audit === index);
      const hues = own.map((cell) => several ? tone(index) : colour(OUTCOMES[cell.outcome].colour));
      return own.length && {
        x: own.map((cell) => cell.leak.mean), y: own.map((cell) => at[cell_row(cell)] + (several ? 0.62 * (0.5 - (index + 0.5) / data.audits.length) : 0)),
        mode: "markers", marker: { color: hues, symbol: own.map((cell) => OUTCOMES[cell.outcome].shape), size: 10 },
        customdata: own.map((cell) => plain(cell_name(cell)) + "<br>" + cell.outcome + ": " + signed(cell.leak.mean) + " [" + signed(cell.leak.low) + ", " + signed(cell.leak.high) + "]"),
        hovertemplate: "%{customdata}<extra></extra>",
        own, hues,
      };
    }).filter(Boolean);
    const bars = [];
    for (const trace of traces) {
      for (const hue of unique(trace.hues)) {  // a bar has one colour for all its points
        const picked = trace.own.map((_, i) => i).filter((i) => trace.hues[i] === hue);
        bars.push({
          x: picked.flatMap((i) => [trace.own[i].leak.low, trace.own[i].leak.high, null]),
          y: picked.flatMap((i) => [trace.y[i], trace.y[i], null]), mode: "lines", line: { color: hue, width: 2 }, hoverinfo: "skip",
        });
      }
      delete trace.own; delete trace.hues;
    }
    const margins = unique(data.audits.map((audit) => audit.margin)), xs = [0, ...margins, ...cells.flatMap((cell) => [cell.leak.low, cell.leak.high])];
    const ends = [Math.min(...xs), Math.max(...xs)], ink = colour("--ink"), soft = colour("--soft");
    const line = (x, dash, hue) => ({ type: "line", x0: x, x1: x, yref: "paper", y0: 0, y1: 1, line: { color: hue, width: 1.3, dash }, layer: "below" });
    chart(place, [...bars, ...traces], {
      margin: { l: 12, r: 14, t: 26, b: 12 },
      xaxis: { title: "leak, points of test accuracy", tickformat: "+.2~f", range: [ends[0] - 0.04 * (ends[1] - ends[0]), ends[1] + 0.04 * (ends[1] - ends[0])] },
      yaxis: { tickvals: rows.map((_, index) => index), ticktext: rows.map((row) => plain(cut(label(row), length))), range: [-0.7, rows.length - 0.3], showgrid: true, ticks: "" },
      shapes: [line(0, "solid", ink), ...margins.map((margin) => line(margin, "dash", soft))],
      annotations: [{ text: "0", x: 0, yref: "paper", y: 1, yanchor: "bottom" }, ...margins.map((margin) => ({ text: "margin " + margin, x: margin, yref: "paper", y: 1, yanchor: "bottom", xanchor: "left" }))],
    }, Math.max(170, rows.length * height_of_row + 84));
  },
  rows() {
    return [["audit", "attack", "student", "data", "outcome", "leak", "low", "high", "margin"], ...forest_cells().map((cell) =>
      [data.audits[cell.audit].label, cell.attack, cell.student, cell.data || "", cell.outcome, cell.leak.mean, cell.leak.low, cell.leak.high, data.audits[cell.audit].margin])];
  },
};
if (forest_student) forest_student.addEventListener("change", () => { draw("forest"); refill("forest"); });

// Spectrum.
const TICKS = { tickvals: [0.01, 0.05, 0.25, 1, 4], ticktext: ["1/100", "1/20", "1/4", "1", "4"] };
const at_high_T = (spectrum) => spectrum.cmi.map((value, at) => value / spectrum.powers[at] ** 2);
function hump(spectrum) {
  const values = at_high_T(spectrum), order = spectrum.powers.map((_, at) => at).sort((a, b) => spectrum.powers[a] - spectrum.powers[b]);
  const best = order.reduce((a, b) => values[b] > values[a] ? b : a, order[0]);
  // On the plateau towards high T, rounding alone makes a largest value.
  return values[best] > 1.02 * values[order[0]] && best !== order[order.length - 1] ? { power: spectrum.powers[best], value: values[best] } : null;
}
figures.spectrum = {
  draw(place) {
    const column = narrow(place), traces = [], tops = [0, 0], card = colour("--card");
    data.teachers.forEach((teacher, index) => {
      for (const split of ["train", "test"]) {
        const spectrum = teacher.spectra[split];
        if (!spectrum) continue;
        const test = split === "test" || !teacher.spectra.test, hue = tone(index), who = plain(teacher.label) + ", " + called(split);
        const look = { mode: test ? "lines+markers" : "lines", line: { color: hue, width: test ? 2.2 : 1.8, dash: test ? "solid" : "dot" }, marker: { symbol: shape(index), size: 6 } };
        const temperatures = spectrum.powers.map((power) => short(1 / power));
        traces.push({ x: spectrum.powers, y: spectrum.cmi, ...look, text: temperatures, hovertemplate: who + "<br>T = %{text}: CMI %{y:.3g} nats<extra></extra>" });
        traces.push({ x: spectrum.powers, y: at_high_T(spectrum), ...look, text: temperatures, xaxis: "x2", yaxis: "y2", hovertemplate: who + "<br>T = %{text}: T² CMI %{y:.3g} nats<extra></extra>" });
        tops[0] = Math.max(tops[0], ...spectrum.cmi); tops[1] = Math.max(tops[1], ...at_high_T(spectrum));
        const ring = { mode: "markers", marker: { symbol: "circle-open", size: 14, color: hue, line: { width: 2.2 } } };
        traces.push({ x: [spectrum.supremum_power], y: [spectrum.supremum], ...ring, hovertemplate: who + "<br>supremum " + short(spectrum.supremum) + " nats at a = " + short(spectrum.supremum_power) + "<extra></extra>" });
        const top = hump(spectrum);
        if (top) traces.push({ x: [top.power], y: [top.value], ...ring, xaxis: "x2", yaxis: "y2", hovertemplate: who + "<br>hump " + short(top.value) + " nats at T = " + short(1 / top.power) + "<extra></extra>" });
        if (spectrum.within_class_variance) {
          const limit = spectrum.within_class_variance / 2;
          traces.push({ x: [0.0062, 0.01], y: [limit, limit], mode: "lines", line: { color: hue, width: 2.5 }, xaxis: "x2", yaxis: "y2", hovertemplate: who + "<br>limit W/2 = " + short(limit) + " nats<extra></extra>" });
          tops[1] = Math.max(tops[1], limit);
        }
      }
    });
    // What lies four decades under the top teaches nobody, and would flatten the rest.
    const floor = (top) => top > 0 ? log_axis(top / 1e4, top * 1.8) : { range: [-0.1, 1] };
    chart(place, traces, {
      grid: column ? { rows: 2, columns: 1, pattern: "independent", ygap: 0.28 } : { rows: 1, columns: 2, pattern: "independent", xgap: 0.16 },
      margin: { l: 12, r: 14, t: 32, b: 12 },
      xaxis: { type: "log", title: "power a = 1/T", ...TICKS, range: [Math.log10(0.0055), Math.log10(9.5)] }, yaxis: { title: "nats", ...floor(tops[0]) },
      xaxis2: { type: "log", title: "power a = 1/T", ...TICKS, range: [Math.log10(0.0055), Math.log10(9.5)] }, yaxis2: { title: "nats", ...floor(tops[1]) },
      annotations: [heading("CMI(a)", "x", "y domain"), heading("T² CMI(1/T)", "x2", "y2 domain")],
    }, column ? 700 : 400);
  },
  rows() {
    const rows = [["teacher", "images", "power", "temperature", "CMI", "T^2 CMI"]];
    for (const teacher of data.teachers) for (const [split, spectrum] of Object.entries(teacher.spectra))
      spectrum.powers.forEach((power, at) => rows.push([teacher.label, called(split), power, 1 / power, spectrum.cmi[at], at_high_T(spectrum)[at]]));
    return rows;
  },
};

// Class by class.
const measure = find("#classes-measure"), class_split = find("#classes-split");
const MOST_CLASSES = 24;
function class_values(teacher) {
  const spectrum = teacher.spectra[class_split.value];
  if (!spectrum || !spectrum.cmi_per_class) return null;
  const nearest = (power) => spectrum.powers.reduce((best, value, at) => Math.abs(Math.log(value / power)) < Math.abs(Math.log(spectrum.powers[best] / power)) ? at : best, 0);
  const value = (line) => {
    if (measure.value === "supremum") return Math.max(...line);
    if (measure.value === "residual") return Math.max(...line.map((one, at) => spectrum.powers[at] >= 0.0499 && spectrum.powers[at] <= 1 ? one / spectrum.powers[at] ** 2 : 0));
    return line[nearest(1 / Number(measure.value))];
  };
  return new Map(spectrum.classes.map((index, at) => [teacher.class_names[index] ?? String(index), value(spectrum.cmi_per_class[at])]));
}
figures.classes = {
  draw(place) {
    const found = data.teachers.map(class_values), largest = new Map();
    for (const values of found) if (values) for (const [name, value] of values) largest.set(name, Math.max(largest.get(name) ?? 0, value));
    const names = [...largest.keys()].sort((a, b) => largest.get(b) - largest.get(a)).slice(0, MOST_CLASSES).reverse();
    const spans = { x: [], y: [], mode: "lines", line: { color: colour("--line"), width: 3 }, hoverinfo: "skip" };
    names.forEach((name, at) => {
      const values = found.filter(Boolean).map((map) => map.get(name)).filter((value) => value != null);
      spans.x.push(Math.min(...values), Math.max(...values), null); spans.y.push(at, at, null);
    });
    const traces = data.teachers.map((teacher, index) => found[index] && {
      x: names.map((name) => found[index].get(name) ?? null), y: names.map((_, at) => at), mode: "markers",
      marker: { color: tone(index), symbol: shape(index), size: 10 }, text: names.map(plain),
      hovertemplate: plain(teacher.label) + "<br>%{text}: %{x:.3g} nats<extra></extra>",
    }).filter(Boolean);
    const left_out = largest.size - names.length;
    chart(place, [spans, ...traces], {
      margin: { l: 12, r: 14, t: left_out ? 28 : 8, b: 12 },
      xaxis: { title: "nats", rangemode: "tozero" },
      yaxis: { tickvals: names.map((_, at) => at), ticktext: names.map((name) => plain(cut(name, narrow(place) ? 16 : 30))), range: [-0.7, names.length - 0.3], ticks: "" },
      annotations: left_out ? [{ text: "the " + names.length + " classes with the largest of " + largest.size, xref: "paper", x: 0, xanchor: "left", yref: "paper", y: 1, yanchor: "bottom" }] : [],
    }, names.length * 23 + 80);
  },
  rows() {
    const rows = [["teacher", "images", "class", measure.selectedOptions[0].textContent]];
    for (const teacher of data.teachers) { const values = class_values(teacher); if (values) for (const [name, value] of values) rows.push([teacher.label, called(class_split.value), name, value]); }
    return rows;
  },
};
for (const control of [measure, class_split]) if (control) control.addEventListener("change", () => { draw("classes"); refill("classes"); });

// Clusters on the simplex, drawn by hand: a plot library would not keep up with the slider.
const spread = data.teachers.filter((teacher) => teacher.clusters);
const CORNERS = [[34, 316], [366, 316], [200, 28.5]];
const simplex = { teachers: [], corners: [], panels: [], at: 0, power: 1, frame: 0 };
const SYMBOLS = [  // of the three classes, about the origin
  "M-4.2 0a4.2 4.2 0 1 0 8.4 0a4.2 4.2 0 1 0 -8.4 0", "M-3.9 -3.9h7.8v7.8h-7.8z", "M0 -5.2L4.9 3.6h-9.8z",
];
const corner_select = (place) => find('[data-corner="' + place + '"]');
function given_three(row, corners, power) {
  const values = corners.map((column) => row[column]).map((value) => value == null ? -Infinity : power * value);
  const most = Math.max(...values);
  if (most === -Infinity) return null;
  const weights = values.map((value) => Math.exp(value - most)), sum = weights[0] + weights[1] + weights[2];
  return weights.map((weight) => weight / sum);
}
const on_plane = (p) => [0, 1].map((axis) => p[0] * CORNERS[0][axis] + p[1] * CORNERS[1][axis] + p[2] * CORNERS[2][axis]);

function build_simplex(place) {
  const split = find("#simplex-split").value;
  place.replaceChildren();
  const holder = element("div", { class: "panels" + (simplex.teachers.length < 2 ? " one" : "") });
  place.append(holder);
  simplex.panels = simplex.teachers.map((teacher, side) => {
    const names = simplex.corners.map((column) => teacher.class_names[teacher.shown[column]]);
    const svg = element("svg:svg", { viewBox: "0 0 400 352", role: "img", "aria-label": "Answers of " + teacher.label + " to images of " + names.join(", ") });
    const line = colour("--line");
    const path = (points) => "M" + points.map((p) => on_plane(p).map((v) => v.toFixed(1)).join(" ")).join("L");
    svg.append(element("svg:path", { d: path([[1, 0, 0], [0, 1, 0], [0, 0, 1]]) + "Z", fill: colour("--faint"), stroke: colour("--soft"), "stroke-width": 1.2, "stroke-linejoin": "round" }));
    for (const share of [0.25, 0.5, 0.75]) for (const axis of [0, 1, 2]) {
      const ends = [1, 2].map((step) => { const p = [0, 0, 0]; p[axis] = share; p[(axis + step) % 3] = 1 - share; return p; });
      svg.append(element("svg:path", { d: path(ends), stroke: line, "stroke-width": 1, fill: "none" }));
    }
    const anchors = ["start", "end", "middle"], shifts = [[-22, 26], [22, 26], [0, -12]];
    names.forEach((name, corner) => {
      const [x, y] = CORNERS[corner];
      const label = element("svg:text", { x: x + shifts[corner][0], y: y + shifts[corner][1], "text-anchor": anchors[corner] });
      const bullet = element("svg:tspan", { style: "fill:" + tone(corner) }, ["●", "■", "▲"][corner] + " ");
      label.append(bullet, cut(name, 20));
      svg.append(label);
    });
    const clusters = teacher.clusters[split] || Object.values(teacher.clusters)[0], points = [];
    const rays = [0, 1, 2].map((corner) => element("svg:path", { fill: "none", stroke: tone(corner), "stroke-width": 0.8, "stroke-opacity": 0.22 }));
    svg.append(...rays);
    clusters.labels.forEach((label, row) => {
      const corner = simplex.corners.findIndex((column) => teacher.shown[column] === label);
      if (corner < 0) return;
      const mark = element("svg:path", { d: SYMBOLS[corner], fill: tone(corner), "fill-opacity": 0.6, stroke: tone(corner), "stroke-opacity": 0.9, "stroke-width": 0.6 });
      svg.append(mark);
      points.push({ corner, row: clusters.log_probs[row], mark });
    });
    const centroids = [0, 1, 2].map((corner) => element("svg:path", { d: SYMBOLS[corner], fill: tone(corner), stroke: colour("--ink"), "stroke-width": 0.9 }));
    svg.append(...centroids);
    const words = element("p", {});
    const heads = [element("h4", {}, teacher.label)];
    if (spread.length > 2) {
      const select = element("select", { "aria-label": side ? "Teacher on the right" : "Teacher on the left" },
        ...spread.map((one, at) => [one, at]).filter(([one]) => one.task === teacher.task).map(([one, at]) => element("option", { value: at }, one.label)));
      select.value = spread.indexOf(teacher);
      select.addEventListener("change", () => { simplex.teachers[side] = spread[Number(select.value)]; draw("simplex"); find("select", simplex.panels[side].box).focus(); });
      heads[0] = select;
    }
    const box = element("div", {}, ...heads, words, svg);
    holder.append(box);
    const panel = { teacher, split, box, svg, points, rays, centroids, words, names };
    svg.addEventListener("pointermove", (event) => hover_simplex(panel, event));
    svg.addEventListener("pointerleave", hide_tip);
    return panel;
  });
}

function move_simplex() {
  for (const panel of simplex.panels) {
    const sums = [0, 1, 2].map(() => [0, 0, 0, 0]);
    for (const point of panel.points) {
      const p = given_three(point.row, simplex.corners, simplex.power);
      point.p = p;
      point.mark.setAttribute("visibility", p ? "visible" : "hidden");
      if (!p) continue;
      point.xy = on_plane(p);
      point.mark.setAttribute("transform", "translate(" + point.xy[0].toFixed(2) + " " + point.xy[1].toFixed(2) + ")");
      const sum = sums[point.corner];
      sum[0] += p[0]; sum[1] += p[1]; sum[2] += p[2]; sum[3] += 1;
    }
    sums.forEach((sum, corner) => {
      panel.centroids[corner].setAttribute("visibility", sum[3] ? "visible" : "hidden");
      if (!sum[3]) { panel.rays[corner].setAttribute("d", ""); return; }
      const middle = on_plane([sum[0] / sum[3], sum[1] / sum[3], sum[2] / sum[3]]), from = middle.map((v) => v.toFixed(1)).join(" ");
      panel.centroids[corner].setAttribute("transform", "translate(" + from + ") scale(1.7)");
      panel.rays[corner].setAttribute("d", panel.points.filter((point) => point.corner === corner && point.p)
        .map((point) => "M" + from + "L" + point.xy.map((v) => v.toFixed(1)).join(" ")).join(""));
    });
  }
}

function say_simplex() {
  const slider = find("#temperature"), power = simplex.powers[simplex.at], T = 1 / power;
  find("#temperature-shown").textContent = "T = " + short(T);
  slider.setAttribute("aria-valuetext", "T = " + short(T));
  for (const panel of simplex.panels) {
    const spectrum = panel.teacher.spectra[panel.split], at = spectrum.powers.indexOf(power);
    const unseen = panel.points.filter((point) => !point.p).length;
    panel.words.textContent = "T² CMI(1/T) = " + (at < 0 ? "–" : short(at_high_T(spectrum)[at])) + " nats over all classes"
      + (unseen ? "; " + unseen + " answers give none of the three" : "");
  }
}

function go_to(at, smoothly) {
  simplex.at = at;
  find("#temperature").value = at;
  cancelAnimationFrame(simplex.frame);
  const from = Math.log(simplex.power), to = Math.log(simplex.powers[at]), began = performance.now();
  if (!smoothly || calm.matches || printing) { simplex.power = simplex.powers[at]; move_simplex(); say_simplex(); return; }
  const step = (now) => {
    const share = Math.min(1, (now - began) / 220);
    simplex.power = share < 1 ? Math.exp(from + (to - from) * share) : simplex.powers[at];
    move_simplex();
    if (share < 1) simplex.frame = requestAnimationFrame(step);
  };
  simplex.frame = requestAnimationFrame(step);
  say_simplex();
}

function hover_simplex(panel, event) {
  const box = panel.svg.getBoundingClientRect(), scale = 400 / box.width;
  const x = (event.clientX - box.left) * scale, y = (event.clientY - box.top) * scale;
  let best = null, least = 12 * 12;
  for (const point of panel.points) {
    if (!point.p) continue;
    const distance = (point.xy[0] - x) ** 2 + (point.xy[1] - y) ** 2;
    if (distance < least) { least = distance; best = point; }
  }
  if (!best) { hide_tip(); return; }
  show_tip(["an image of " + panel.names[best.corner], ...panel.names.map((name, corner) => name + ": " + (100 * best.p[corner]).toFixed(1) + "%")], event.clientX, event.clientY);
}

if (spread.length) {
  const plain_one = spread.find((teacher) => teacher.undefended) || spread[0];
  const others = spread.filter((teacher) => teacher !== plain_one && teacher.task === plain_one.task);
  const other = others.find((teacher) => !teacher.undefended) || others[0];
  simplex.teachers = other ? [plain_one, other] : [plain_one];
  simplex.powers = [...plain_one.spectra.test.powers].sort((a, b) => b - a);
  simplex.corners = data.first_classes[plain_one.task].map((index) => plain_one.shown.indexOf(index)).filter((column) => column >= 0);
  while (simplex.corners.length < 3) simplex.corners.push(simplex.corners.length ? simplex.corners[simplex.corners.length - 1] : 0);
  const slider = find("#temperature");
  slider.min = 0; slider.max = simplex.powers.length - 1;
  simplex.at = simplex.powers.indexOf(simplex.powers.reduce((best, power) => Math.abs(Math.log(power * 4)) < Math.abs(Math.log(best * 4)) ? power : best));
  simplex.power = simplex.powers[simplex.at];
  slider.value = simplex.at;
  for (const corner of [0, 1, 2]) {
    const select = corner_select(corner);
    plain_one.shown.forEach((index, column) => select.append(element("option", { value: column }, plain_one.class_names[index])));
    select.value = simplex.corners[corner];
    select.addEventListener("change", () => {
      const now = Number(select.value), twin = simplex.corners.indexOf(now);
      if (twin >= 0 && twin !== corner) { simplex.corners[twin] = simplex.corners[corner]; corner_select(twin).value = simplex.corners[corner]; }
      simplex.corners[corner] = now;
      draw("simplex"); refill("simplex");
    });
  }
  slider.addEventListener("input", () => { stop(); go_to(Number(slider.value), true); });
  slider.addEventListener("change", () => refill("simplex"));
  find("#simplex-split").addEventListener("change", () => { draw("simplex"); refill("simplex"); });
  const button = find("#play");
  let timer = 0;
  const stop = () => { clearInterval(timer); timer = 0; button.setAttribute("aria-pressed", "false"); button.textContent = "▶ Play"; };
  button.addEventListener("click", () => {
    if (timer) { stop(); return; }
    button.setAttribute("aria-pressed", "true");
    button.textContent = "❚❚ Pause";
    let step = simplex.at === simplex.powers.length - 1 ? -1 : 1;
    timer = setInterval(() => {
      if (simplex.at + step < 0 || simplex.at + step >= simplex.powers.length) { if (step < 0) { stop(); return; } step = -1; }
      go_to(simplex.at + step, true);
    }, 260);
  });
  figures.simplex = {
    draw(place) { build_simplex(place); move_simplex(); say_simplex(); },
    rows() {
      const rows = [["teacher", "images", "true class", ...simplex.panels[0].names.map((name) => "share of " + name), "temperature"]];
      for (const panel of simplex.panels) for (const point of panel.points)
        if (point.p) rows.push([panel.teacher.label, called(panel.split), panel.names[point.corner], ...point.p, 1 / simplex.power]);
      return rows;
    },
  };
}

// What it costs.
const share_axis = { range: [-0.02, 1.02], tickformat: ".0%" };
figures.reliability = {
  draw(place) {
    const traces = [{ x: [0, 1], y: [0, 1], mode: "lines", line: { color: colour("--soft"), dash: "dash", width: 1.2 }, hoverinfo: "skip" }];
    spread.forEach((teacher) => {
      const index = data.teachers.indexOf(teacher), bins = teacher.reliability || [], n = bins.reduce((sum, bin) => sum + bin.n, 0);
      traces.push({
        x: bins.map((bin) => bin.confidence), y: bins.map((bin) => bin.accuracy), mode: "lines+markers", line: { color: tone(index), width: 1.6 },
        marker: { symbol: shape(index), color: tone(index), size: bins.map((bin) => 5 + 15 * Math.sqrt(bin.n / n)), opacity: 0.85 }, cliponaxis: false, text: bins.map((bin) => bin.n),
        hovertemplate: plain(teacher.label) + "<br>confidence %{x:.1%}, right %{y:.1%}<br>%{text} answers<extra></extra>",
      });
    });
    chart(place, traces, { xaxis: { title: "confidence", ...share_axis }, yaxis: { title: "right answers", ...share_axis } }, 340);
  },
  rows() {
    return [["teacher", "low", "high", "answers", "confidence", "accuracy"], ...spread.flatMap((teacher) =>
      (teacher.reliability || []).map((bin) => [teacher.label, bin.low, bin.high, bin.n, bin.confidence, bin.accuracy]))];
  },
};
figures.risk = {
  draw(place) {
    const traces = spread.filter((teacher) => teacher.risk_coverage).map((teacher) => {
      const index = data.teachers.indexOf(teacher);
      return {
        x: teacher.risk_coverage.coverage, y: teacher.risk_coverage.risk, mode: "lines+markers", line: { color: tone(index), width: 2 },
        marker: { symbol: shape(index), size: 7, maxdisplayed: 8 }, hovertemplate: plain(teacher.label) + "<br>the %{x:.0%} most confident: %{y:.2%} wrong<extra></extra>",
      };
    });
    chart(place, traces, { xaxis: { title: "answers taken, the most confident first", ...share_axis }, yaxis: { title: "wrong answers", tickformat: ".1~%", rangemode: "tozero" } }, 340);
  },
  rows() {
    return [["teacher", "coverage", "risk"], ...spread.filter((teacher) => teacher.risk_coverage).flatMap((teacher) =>
      teacher.risk_coverage.coverage.map((share, at) => [teacher.label, share, teacher.risk_coverage.risk[at]]))];
  },
};
figures["trade-off"] = {
  draw(place) {
    const margin = data.audits[0].margin, points = data.trade_off;
    const traces = points.map((point, index) => ({
      x: [point.leak.mean], y: [point.accuracy], mode: "markers+text", text: [plain(cut(point.label, 28))], textposition: index % 2 ? "bottom center" : "top center", cliponaxis: false,
      marker: { color: tone(index), symbol: OUTCOMES[point.verdict].shape, size: 12 }, textfont: { color: colour("--ink"), size: 12.5 },
      error_x: { type: "data", symmetric: false, array: [point.leak.high - point.leak.mean], arrayminus: [point.leak.mean - point.leak.low], color: tone(index), thickness: 1.8, width: 0 },
      hovertemplate: plain(point.label) + "<br>accuracy %{y:.2f}%<br>largest leak " + signed(point.leak.mean) + " points, through " + plain(point.attack) + "<extra></extra>",
    }));
    const heights = points.map((point) => point.accuracy), pad = Math.max(0.4, 0.25 * (Math.max(...heights) - Math.min(...heights)));
    chart(place, traces, {
      margin: { l: 12, r: 30, t: 26, b: 12 },
      xaxis: { title: "largest leak, points", tickformat: "+.2~f" }, yaxis: { title: "test accuracy, %", range: [Math.min(...heights) - pad, Math.max(...heights) + pad] },
      shapes: [[0, "solid", "--ink"], [margin, "dash", "--soft"]].map(([x, dash, hue]) => ({ type: "line", x0: x, x1: x, yref: "paper", y0: 0, y1: 1, layer: "below", line: { dash, width: 1.3, color: colour(hue) } })),
      annotations: [{ text: "margin " + margin, x: margin, xanchor: "left", yref: "paper", y: 1, yanchor: "bottom" }],
    }, 380);
  },
  rows() {
    return [["audit", "accuracy", "largest leak", "low", "high", "attack", "student", "verdict"], ...data.trade_off.map((point) =>
      [point.label, point.accuracy, point.leak.mean, point.leak.low, point.leak.high, point.attack, point.student, point.verdict])];
  },
};

// Leak over the number of queries.
const query_student = find("#queries-student");
if (query_student) fill_students(query_student, 12);
const query_lines = () => data.query_curves.filter((line) => !query_student.value || line.student === query_student.value);
figures.queries = {
  draw(place) {
    const lines = query_lines(), names = unique(lines.map((line) => [line.teacher, line.attack, line.student, line.data].join(", ")));
    const ends = lines.map((line) => line.points[line.points.length - 1]);
    const traces = lines.map((line, index) => ({
      x: line.points.map((point) => point.queries), y: line.points.map((point) => point.mean), name: plain(cut(names[index], 46)), mode: "lines+markers",
      line: { color: tone(index), width: 2, dash: ["solid", "dash", "dot"][Math.floor(index / 6) % 3] }, marker: { symbol: shape(index), size: 9 },
      error_y: { type: "data", symmetric: false, array: line.points.map((point) => point.high - point.mean), arrayminus: line.points.map((point) => point.mean - point.low), color: see_through(tone(index), 0.5), width: 0, thickness: 1.6 },
      hovertemplate: plain(names[index]) + "<br>%{x:,} queries: %{y:+.2f} points<extra></extra>",
    }));
    const margin = data.audits[0].margin;
    chart(place, traces, {
      showlegend: true, legend: { orientation: "h", x: 0, y: -0.22, xanchor: "left", yanchor: "top", font: { size: 12 } },
      xaxis: { type: "log", title: "queries per knockoff", tickvals: unique(lines.flatMap((line) => line.points.map((point) => point.queries))), tickformat: ",d" },
      yaxis: { title: "leak, points", tickformat: "+.2~f" },
      shapes: [[0, "solid", "--ink"], [margin, "dash", "--soft"]].map(([y, dash, hue]) => ({ type: "line", y0: y, y1: y, xref: "paper", x0: 0, x1: 1, layer: "below", line: { dash, width: 1.3, color: colour(hue) } })),
    }, 380 + 20 * Math.ceil(ends.length / (narrow(place) ? 1 : 2)));
  },
  rows() {
    return [["teacher", "attack", "student", "data", "queries", "leak", "low", "high"], ...query_lines().flatMap((line) =>
      line.points.map((point) => [line.teacher, line.attack, line.student, line.data, point.queries, point.mean, point.low, point.high]))];
  },
};
if (query_student) query_student.addEventListener("change", () => { draw("queries"); refill("queries"); });

// Legends are plain HTML, so that they wrap and are read aloud.
const MARKS = { "circle": "M7 2a5 5 0 1 0 .01 0z", "square": "M2.5 2.5h9v9h-9z", "diamond": "M7 1l6 6-6 6-6-6z", "triangle-up": "M7 1.5l6 10.5h-12z", "cross": "M5 1h4v4h4v4h-4v4h-4v-4h-4v-4h4z", "star": "M7 .5l2 4.3 4.6.5-3.4 3.2 1 4.7-4.2-2.4-4.2 2.4 1-4.7-3.4-3.2 4.6-.5z", "circle-open": "M7 2a5 5 0 1 0 .01 0z" };
function legends() {
  const items = {
    kinds: Object.values(KINDS).map((name, index) => [name, tone(index), shape(index)]),
    teachers: data.teachers.map((teacher, index) => [teacher.label, tone(index), shape(index)]),
    audits: data.audits.map((audit, index) => [audit.label, tone(index), "square"]),
    outcomes: Object.entries(OUTCOMES).map(([name, look]) => [name, colour(look.colour), look.shape]),
  };
  const all_items = { ...items, audits: [...items.audits, ...Object.entries(OUTCOMES).map(([name, look]) => [name, colour("--soft"), look.shape])] };
  for (const list of all("ul[data-legend]")) {
    list.replaceChildren(...all_items[list.dataset.legend].map(([name, hue, mark]) => {
      const drawing = element("svg:svg", { width: 14, height: 14, "aria-hidden": "true" }, element("svg:path", { d: MARKS[mark], fill: mark.endsWith("open") ? "none" : hue, stroke: hue, "stroke-width": mark.endsWith("open") ? 2 : 0 }));
      return element("li", {}, drawing, name);
    }));
  }
}

// Numbers: as a file, and as a table.
const quoted = (value) => { const text = String(value); return /[",\n\r]/.test(text) ? '"' + text.replace(/"/g, '""') + '"' : text; };
const csv = (name) => figures[name].rows().map((row) => row.map(quoted).join(",")).join("\r\n") + "\r\n";
function save(content, kind, file) {
  const link = element("a", { download: file, href: URL.createObjectURL(new Blob([content], { type: kind })) });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
for (const button of all("button[data-csv]")) button.addEventListener("click", () => save(csv(button.dataset.csv), "text/csv", "undistill-" + button.dataset.csv + ".csv"));
for (const button of all("button[data-svg]")) button.addEventListener("click", () => {
  const name = button.dataset.svg, place = find("#plot-" + name);
  if (name !== "simplex") { Plotly.downloadImage(place, { format: "svg", filename: "undistill-" + name, width: place.clientWidth, height: place.clientHeight }); return; }
  const whole = element("svg:svg", { xmlns: "http://www.w3.org/2000/svg", viewBox: "0 0 " + 420 * simplex.panels.length + " 390", width: 420 * simplex.panels.length });
  simplex.panels.forEach((panel, side) => {
    const part = element("svg:g", { transform: "translate(" + (420 * side + 10) + " 34)", "font-family": "sans-serif", "font-size": 13 });
    part.append(element("svg:text", { x: 200, y: -16, "text-anchor": "middle", "font-weight": "bold", fill: colour("--ink") }, panel.teacher.label), ...[...panel.svg.cloneNode(true).childNodes]);
    whole.append(part);
  });
  save(new XMLSerializer().serializeToString(whole), "image/svg+xml", "undistill-simplex.svg");
});
const LONGEST = 500;
function refill(name) {
  const details = find('details[data-numbers="' + name + '"]');
  if (!details || !details.open) return;
  const [head, ...rows] = figures[name].rows();
  const text = (value) => typeof value === "number" && !Number.isInteger(value) ? short(value) : String(value);
  const table = element("table", { class: "numbers-table" },
    element("thead", {}, element("tr", {}, ...head.map((name) => element("th", { scope: "col" }, String(name))))),
    element("tbody", {}, ...rows.slice(0, LONGEST).map((row) => element("tr", {}, ...row.map((value) => element("td", {}, text(value)))))));
  find(".scroll", details).replaceChildren(table, rows.length > LONGEST ? element("p", { class: "note" }, "The first " + LONGEST + " of " + rows.length + " rows; the CSV file holds all.") : "");
}
for (const details of all("details[data-numbers]")) details.addEventListener("toggle", () => refill(details.dataset.numbers));

// Drawing: what is on the screen first, the rest when there is time; again when width or colours change.
const names = Object.keys(figures).filter((name) => name !== "matrix" && find("#plot-" + name));
function draw_rest() {
  const name = names.find((one) => !drawn.has(one));
  if (!name) { root.dataset.ready = "yes"; return; }
  draw(name);
  setTimeout(draw_rest, 0);
}
const seen = new IntersectionObserver((entries) => {
  for (const entry of entries) if (entry.isIntersecting && !drawn.has(entry.target.id.slice(5))) draw(entry.target.id.slice(5));
}, { rootMargin: "200px" });
const watch = () => { for (const name of names) seen.observe(find("#plot-" + name)); draw_rest(); };
const redraw = () => { legends(); for (const name of drawn) draw(name); };
legends();
addEventListener("load", () => setTimeout(watch, 0));

let width = innerWidth, waiting = 0;
addEventListener("resize", () => {
  if (printing || innerWidth === width) return;
  width = innerWidth;
  clearTimeout(waiting);
  waiting = setTimeout(redraw, 120);
});
new MutationObserver(() => { if (!printing) redraw(); }).observe(root, { attributes: true, attributeFilter: ["data-theme"] });
find("#theme").addEventListener("click", () => { root.dataset.theme = root.dataset.theme === "dark" ? "light" : "dark"; });
let theme = "light";
addEventListener("beforeprint", () => {
  printing = true;
  theme = root.dataset.theme;
  root.dataset.theme = "light";
  for (const name of names) draw(name);
  legends();
});
addEventListener("afterprint", () => { root.dataset.theme = theme; printing = false; redraw(); });

window.undistill = { data, csv, figures };  // for those who want the numbers in a console
})();
