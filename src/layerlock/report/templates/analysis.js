"use strict";
// Draws the charts and the maps. What is shown is in the form `choices`, and in the location's hash, which a link can
// carry. Names are the user's: they only become text nodes, never markup.

const found = JSON.parse(document.getElementById("found").textContent);
const form = document.getElementById("choices");
const VIRIDIS = ["#440154", "#472d7b", "#3b528b", "#2c728e", "#21918c", "#28ae80", "#5ec962", "#addc30", "#fde725"];
const HEIGHT = 230;
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
const STEPS = { ...ARROWS, Home: [-1e6, 0], End: [1e6, 0] };

// ---- elements

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

const html = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);

const svg = (tag, attributes = {}, ...children) =>
  fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

const label = (x, y, anchor, words, kind = "") => svg("text", { x, y, "text-anchor": anchor, class: kind }, words);

function swatch(encoder) {
  const line = svg("path", { class: "line", d: "M1 6H25" });
  const mark = svg("use", { href: `#mark-${encoder.mark}`, x: 13, y: 6 });
  return svg("svg", { class: `swatch ${encoder.look}`, viewBox: "0 0 26 12" }, line, mark);
}

/** A picture that can be pointed at, tapped, and walked through with the keyboard. `told` is what it says aloud. */
function interactive(picture, name, { point, walk, leave }) {
  fill(picture, { tabindex: 0, role: "slider", "aria-label": name, "aria-valuenow": 0, "aria-valuetext": "" }, []);
  const aim = (event) => {
    const box = picture.getBoundingClientRect();
    point(event.clientX - box.left, event.clientY - box.top);
  };
  picture.addEventListener("pointermove", aim);
  picture.addEventListener("pointerdown", aim);
  picture.addEventListener("pointerleave", (event) => event.pointerType === "touch" || leave());
  picture.addEventListener("focus", () => walk(0, 0));
  picture.addEventListener("blur", leave);
  picture.addEventListener("keydown", (event) => {
    if (event.key === "Escape") leave();
    if (!STEPS[event.key]) return;
    event.preventDefault();
    walk(...STEPS[event.key]);
  });
}

function tell(picture, now, words) {
  fill(picture, { "aria-valuenow": now, "aria-valuetext": words }, []);
}

/** The one of some things whose place is nearest to a number. */
const nearestTo = (things, wanted, place) =>
  things.reduce((one, other) => (Math.abs(place(other) - wanted) < Math.abs(place(one) - wanted) ? other : one));

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

// ---- choices: the form, and the hash that says the same

const boxes = (name) => [...document.querySelectorAll(`input[name="${name}"]`)];
const chosen = (name) => boxes(name).map((box) => box.checked);
const fractions = () => form.elements.axis.value === "fraction";

function readHash() {
  form.reset();
  const wanted = new URLSearchParams(location.hash.slice(1));
  for (const field of form.elements) {
    const values = wanted.getAll(field.name);
    if (!field.name || !values.length) continue;
    if (field.type === "checkbox") field.checked = values.includes(field.value);
    else if (field.type === "radio") field.checked ||= values.includes(field.value);
    else if ([...field.options].some((option) => option.value === values[0])) field.value = values[0];
  }
}

/** Names of what is chosen; a group of boxes that are all checked is left out, one without any is an empty name. */
function writeHash() {
  const words = new URLSearchParams(new FormData(form));
  for (const name of ["encoder", "metric"]) {
    if (chosen(name).every(Boolean)) words.delete(name);
    else if (!chosen(name).some(Boolean)) words.append(name, "");
  }
  location.replace(`#${words}`);
}

// ---- charts

/** Round numbers between two others, with the decimals that they need. */
function ticks(low, high, count, unit = "") {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough * 0.999);
  const at = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k++) at.push(k * step + 0);
  const decimals = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  const plain = step >= 1e-4 && Math.abs(high) < 1e7;
  const format = { minimumFractionDigits: decimals, maximumFractionDigits: decimals };
  return { at, words: at.map((value) => (plain ? value.toLocaleString("en", format) : value.toExponential(1)) + unit) };
}

/** Points of the shown encoders on a metric: where on the axis, and value and interval in its unit. */
function curves(metric) {
  const scale = metric.percent ? 100 : 1;
  const scaled = (value) => (value === null ? null : value * scale);
  const shown = chosen("encoder");
  const lines = found.encoders.map((encoder, number) => {
    const points = encoder.depths.map((depth, place) => {
      const [value, low, high, words, heads = []] = metric.cells[number][place];
      const x = fractions() ? depth / Math.max(encoder.blocks, 1) : depth;
      return { depth, x, value: scaled(value), low: scaled(low), high: scaled(high), words, heads };
    });
    return { encoder, points };
  });
  return lines.filter((line, number) => shown[number]);
}

/** Lowest and highest value of all lines and bands, with some room around. */
function range(points, percent) {
  const values = points.flatMap(({ value, low, high }) => [value, low, high]).filter((value) => value !== null);
  if (!values.length) return null;
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const room = (high - low) * 0.06 || Math.abs(high) * 0.1 || 1;
  const top = percent && high <= 100 ? Math.min(100, high + room) : high + room;
  return [low >= 0 ? Math.max(0, low - room) : low - room, top];
}

/** Runs of points without a gap. */
function runs(points, has) {
  const parts = [[]];
  for (const point of points) {
    if (has(point)) parts.at(-1).push(point);
    else parts.push([]);
  }
  return parts.filter((part) => part.length);
}

function best(points, better) {
  const known = points.filter(({ value }) => value !== null);
  if (!better || !known.length) return null;
  const sign = better === "higher" ? 1 : -1;
  return known.reduce((one, other) => (sign * other.value > sign * one.value ? other : one));
}

function series({ encoder, points }, better, x, y) {
  const group = svg("g", { class: `series ${encoder.look}` });
  const path = (part, end) => part.map((point) => `${x(point.x).toFixed(1)} ${y(point[end]).toFixed(1)}`).join("L");
  for (const part of runs(points, ({ low }) => low !== null)) {
    const around = `M${path(part, "high")}L${path(part.slice().reverse(), "low")}Z`;
    group.append(svg("path", { class: part.length > 1 ? "band" : "whisker", d: around }));
  }
  for (const point of points) {
    for (const head of point.heads) group.append(svg("circle", { cx: x(point.x), cy: y(head), r: 1.5, class: "head" }));
  }
  for (const part of runs(points, ({ value }) => value !== null)) {
    group.append(svg("path", { class: "line", d: `M${path(part, "value")}` }));
    for (const point of part) {
      const place = `translate(${x(point.x).toFixed(1)} ${y(point.value).toFixed(1)})`;
      const size = point === best(points, better) ? " scale(1.8)" : points.length > 25 ? " scale(0.7)" : "";
      group.append(svg("use", { href: `#mark-${encoder.mark}`, transform: place + size }));
    }
  }
  return group;
}

function axes(picture, { left, right, bottom, unit, x, y }, [low, high], [first, last]) {
  const vertical = ticks(low, high, 5, unit);
  vertical.at.forEach((value, k) => {
    picture.append(svg("path", { class: "grid", d: `M${left} ${y(value)}H${right}` }));
    picture.append(label(left - 7, y(value) + 4, "end", vertical.words[k]));
  });
  const fits = clamp(Math.floor((right - left) / 45), 2, 12);
  const level = ticks(first, Math.max(last, first + 1e-9), fractions() ? 5 : clamp(last - first, 1, fits));
  level.at.forEach((value, k) => picture.append(label(x(value), bottom + 17, "middle", level.words[k])));
  const words = fractions() ? "fraction of the encoder's depth" : "block";
  picture.append(label((left + right) / 2, bottom + 34, "middle", words));
  picture.append(svg("path", { class: "grid", d: `M${left} ${bottom}H${right}` }));
}

function drawChart(box, metric) {
  const lines = curves(metric);
  const points = lines.flatMap((line) => line.points);
  const extent = range(points, metric.percent);
  if (!extent) return box.replaceChildren(html("p", { class: "note" }, "No value of a shown encoder."));
  const unit = metric.percent ? " %" : "";
  const stops = [...new Set(points.map((point) => point.x))].sort((a, b) => a - b);
  const widest = Math.max(...ticks(...extent, 5, unit).words.map((word) => word.length));
  const frame = { left: 14 + 7 * widest, right: box.clientWidth - 12, top: 10, bottom: HEIGHT - 42, unit };
  const across = [stops[0], stops.at(-1)];
  const share = (value, [low, high]) => (high > low ? (value - low) / (high - low) : 0.5);
  frame.x = (value) => frame.left + 6 + share(value, across) * (frame.right - frame.left - 12);
  frame.y = (value) => frame.bottom - share(value, extent) * (frame.bottom - frame.top);
  const picture = svg("svg", { width: box.clientWidth, height: HEIGHT });
  axes(picture, frame, extent, across);
  picture.append(...lines.map((line) => series(line, metric.better, frame.x, frame.y)));
  box.replaceChildren(picture);
  readable(box, picture, metric, lines, stops, frame);
}

/** Lets a chart tell the values at a depth: a line across it, and a box below or above, clear of the lines. */
function readable(box, picture, metric, lines, stops, frame) {
  const guide = svg("path", { class: "guide" });
  const tip = html("div", { class: "tip" });
  let at = null;
  const show = (place) => {
    at = clamp(place, 0, stops.length - 1);
    const [heading, rows] = reading(lines, stops[at]);
    tip.replaceChildren(html("b", {}, heading), ...rows.map(({ encoder, depth, words }) =>
      html("div", {}, swatch(encoder), html("span", {}, encoder.name), html("i", {}, depth), html("em", {}, words))));
    const x = frame.x(stops[at]);
    guide.setAttribute("d", `M${x} ${frame.top}V${frame.bottom}`);
    picture.prepend(guide);
    box.append(tip);
    const room = window.innerHeight - box.getBoundingClientRect().bottom > tip.offsetHeight;
    tip.style.top = room ? "100%" : `${-tip.offsetHeight}px`;
    tip.style.left = `${clamp(x - tip.offsetWidth / 2, 0, box.clientWidth - tip.offsetWidth)}px`;
    const said = rows.map(({ encoder, depth, words }) => `${encoder.name} ${depth} ${words}`);
    tell(picture, at, [heading, ...said].join("; "));
  };
  const nearest = (x) => nearestTo(stops, x, frame.x);
  interactive(picture, `${metric.name} by depth`, {
    point: (x) => show(stops.indexOf(nearest(x))),
    walk: (right, up) => show(at === null ? 0 : at + right + up),
    leave: () => { at = null; guide.remove(); tip.remove(); },
  });
  fill(picture, { "aria-valuemin": 0, "aria-valuemax": stops.length - 1 }, []);
}

/** What the shown encoders have at a place of the axis; with fractions, each at its nearest depth. */
function reading(lines, stop) {
  const near = ({ encoder, points }) => {
    const point = nearestTo(points, stop, (one) => one.x);
    return { encoder, x: point.x, depth: fractions() ? `${point.depth}/${encoder.blocks}` : "", words: point.words };
  };
  const rows = lines.filter(({ points }) => points.length).map(near).filter(({ x }) => fractions() || x === stop);
  return [fractions() ? `${stop.toFixed(2)} of the depth` : stop === 0 ? "before block 1" : `block ${stop}`, rows];
}

// ---- maps

function colour(share) {
  const place = clamp(share, 0, 1) * (VIRIDIS.length - 1);
  const [one, other] = [VIRIDIS[Math.floor(place)], VIRIDIS[Math.ceil(place)]];
  const part = (text, k) => parseInt(text.slice(k, k + 2), 16);
  const mixed = [1, 3, 5].map((k) => Math.round(part(one, k) + (part(other, k) - part(one, k)) * (place % 1)));
  return `rgb(${mixed.join(" ")})`;
}

/** Values of the chosen map, by depth of the rows and the columns; turned over where only the other order is there. */
function mapValues(kind, rows, columns) {
  const pick = (r, c) => found.maps.find((map) => map.name === kind && map.rows === r && map.columns === c);
  const turned = pick(columns, rows);
  return pick(rows, columns)?.values ?? turned?.values[0].map((_, k) => turned.values.map((row) => row[k]));
}

/** The range of colours: that of the map itself, or of all maps of its kind and at least from 0 to 1. */
function mapRange(kind, values) {
  const own = form.elements.colours.checked;
  const all = own ? values : found.maps.filter((map) => map.name === kind).flatMap((map) => map.values);
  const known = all.flat().filter((value) => value !== null);
  if (!known.length) return [0, 1];
  const [low, high] = [Math.min(...known), Math.max(...known)];
  return own ? [low, high] : [Math.min(0, low), Math.max(1, high)];
}

function drawMap() {
  const box = document.getElementById("map");
  if (!box) return;
  const [kind, rows, columns] = ["map", "rows", "columns"].map((name) => form.elements[name].selectedIndex);
  document.querySelectorAll("[data-map]").forEach((one) => { one.hidden = one.dataset.map !== String(kind); });
  const values = mapValues(kind, rows, columns);
  const none = html("p", { class: "note" }, "There is no such map of these two encoders.");
  if (!values?.length) return box.replaceChildren(none);
  const [up, right] = [found.encoders[rows], found.encoders[columns]];
  showMap(box, values, mapRange(kind, values), {
    name: "map of two encoders",
    rows: { title: `block of ${up.name}`, labels: up.depths },
    columns: { title: `block of ${right.name}`, labels: right.depths },
    figure: (value) => value.toFixed(2).replace("-0.00", "0.00"),
    words: (row, column, value) => {
      const figure = value === null ? "no value" : value.toPrecision(3);
      return `${up.name} block ${up.depths[row]}, ${right.name} block ${right.depths[column]}: ${figure}`;
    },
  });
}

/** A metric of every depth at every checkpoint of a run. */
function drawSteps(box, metric, run) {
  const { depths } = found.encoders[run.encoders[0]];
  const cell = (row, column) => metric.cells[run.encoders[column]][row];
  const scaled = (value) => (value === null ? null : value * (metric.percent ? 100 : 1));
  const values = depths.map((_, row) => run.steps.map((_, column) => scaled(cell(row, column)[0])));
  const known = values.flat().filter((value) => value !== null);
  if (!known.length) return box.replaceChildren(html("p", { class: "note" }, "No value at any step."));
  showMap(box, values, [Math.min(...known), Math.max(...known)], {
    name: `${metric.name} by depth and step`,
    rows: { title: "block", labels: depths },
    columns: { title: "step", labels: run.steps },
    figure: (value) => String(Number(value.toPrecision(2))),
    words: (row, column) => `block ${depths[row]}, step ${run.steps[column]}: ${cell(row, column)[3]}`,
  });
}

/** A map with its scale and its axes. `about` names it, its rows and columns, and has words for its cells. */
function showMap(box, values, [low, high], about) {
  const bar = html("i");
  bar.style.background = `linear-gradient(90deg, ${VIRIDIS.join(", ")})`;
  const told = html("p", { class: "told" });
  const picture = mapPicture(box.clientWidth, values, [low, high], about);
  const scale = html("div", { class: "scale" }, low.toPrecision(2), bar, high.toPrecision(2));
  const axis = (words) => html("p", { class: "axis" }, words);
  box.replaceChildren(scale, axis(`↑ ${about.rows.title}`), picture.svg, axis(`→ ${about.columns.title}`), told);
  readableMap(picture, values, about, told);
}

function mapPicture(width, values, [low, high], { rows, columns, figure }) {
  const [tall, wide] = [values.length, values[0].length];
  const size = Math.min(44, (width - 32) / wide, Math.max(560 / tall, 6));
  const picture = svg("svg", { width: 30 + wide * size, height: tall * size + 22 });
  const x = (column) => 28 + column * size;
  const y = (row) => (tall - 1 - row) * size;
  const every = (room) => Math.ceil(room / size);
  const below = tall * size + 16;
  const widest = Math.max(24, ...columns.labels.map((one) => 8 * `${one}`.length));
  rows.labels.forEach((one, k) => k % every(24) || picture.append(label(22, y(k) + size / 2 + 4, "end", one)));
  columns.labels.forEach((one, k) => k % every(widest) || picture.append(label(x(k) + size / 2, below, "middle", one)));
  values.forEach((row, r) => row.forEach((value, c) => {
    const share = high > low ? (value - low) / (high - low) : 0.5;
    const look = value === null ? { class: "empty" } : { fill: colour(share) };
    picture.append(svg("rect", { x: x(c), y: y(r), width: size + 0.4, height: size + 0.4, ...look }));
    if (value === null || size < 34) return;
    const words = label(x(c) + size / 2, y(r) + size / 2 + 4, "middle", figure(value), "value");
    words.style.fill = share > 0.55 ? "#1a1a1a" : "#fff";
    picture.append(words);
  }));
  return { svg: picture, size, x, y };
}

/** Lets a map tell where a cell is and its value. */
function readableMap({ svg: picture, size, x, y }, values, about, told) {
  const frame = svg("rect", { class: "chosen", width: size, height: size });
  const hint = "Point at a cell, tap it, or use the arrow keys.";
  let at = null;
  const show = (row, column) => {
    at = [clamp(row, 0, values.length - 1), clamp(column, 0, values[0].length - 1)];
    const words = about.words(...at, values[at[0]][at[1]]);
    told.replaceChildren(words);
    fill(frame, { x: x(at[1]), y: y(at[0]) }, []);
    picture.append(frame);
    tell(picture, at[0] * values[0].length + at[1], words);
  };
  const leave = () => { at = null; frame.remove(); told.replaceChildren(hint); };
  interactive(picture, about.name, {
    point: (px, py) => show(values.length - 1 - Math.floor(py / size), Math.floor((px - x(0)) / size)),
    walk: (across, upwards) => (at === null ? show(0, 0) : show(at[0] + upwards, at[1] + across)),
    leave,
  });
  fill(picture, { "aria-valuemin": 0, "aria-valuemax": values.length * values[0].length - 1 }, []);
  leave();
}

// ---- the page

function draw() {
  for (const kind of ["encoder", "metric"]) {
    const shown = chosen(kind);
    document.querySelectorAll(`[data-${kind}]`).forEach((one) => { one.hidden = !shown[one.dataset[kind]]; });
  }
  const plots = [...document.querySelectorAll(".plot")];
  found.metrics.forEach((metric, k) => plots[k].closest("[hidden]") || drawChart(plots[k], metric));
  for (const box of document.querySelectorAll("[data-run]")) {
    const metric = found.metrics[box.closest("[data-metric]").dataset.metric];
    box.closest("[hidden]") || drawSteps(box, metric, found.runs[box.dataset.run]);
  }
  drawMap();
}

document.documentElement.classList.add("scripted");
readHash();
draw();
document.addEventListener("change", writeHash);
document.addEventListener("click", ({ target }) => {
  if (!target.dataset?.set) return;
  for (const box of boxes(target.dataset.set)) box.checked = target.dataset.to === "all";
  writeHash();
});
window.addEventListener("hashchange", () => { readHash(); draw(); });
let width = document.body.clientWidth;
window.addEventListener("resize", () => {
  if (width === document.body.clientWidth) return;
  width = document.body.clientWidth;
  draw();
});
