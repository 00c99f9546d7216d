"use strict";
// Everything that comes from a run reaches the page as text (textContent), never as HTML.
(async () => {
  const $ = (id) => document.getElementById(id);
  const fail = (message) => { $("failure").textContent = message; $("failure").hidden = false; };
  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const unzip = (id) => {
    const stream = new Blob([bytes($(id).textContent)]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).text();
  };
  if (typeof DecompressionStream === "undefined") {
    return fail("This browser is too old to open the page: use one of 2023 or later.");
  }
  const runAsked = () => new URLSearchParams(location.hash.slice(1)).get("run") ?? "0";
  let both, data;
  try {
    both = JSON.parse(await unzip("data-source"));
    data = both.runs[runAsked()] ?? both.runs[0];
    const library = document.createElement("script");
    library.textContent = await unzip("plotly-source");
    document.head.append(library);
  } catch (error) {
    return fail("The page is damaged and cannot be read: " + error.message);
  }

  // --- data -------------------------------------------------------------------------------------
  const facts = data.facts, nFacts = facts.id.length;
  const start = [0];
  for (const prompts of facts.prompts) start.push(start[start.length - 1] + prompts.length);
  const nItems = start[nFacts];
  const cells = new Map(data.cells.map((cell) => [cell.name, cell]));
  const ANY = { fixed: "▲ fixed", broken: "▼ broken", right: "right", wrong: "not right", unknown: "not run" };
  const CATEGORY = { correct: "right answer", generic: "generic word", same_type: "wrong, same type", other: "other" };
  const bit = (array, i) => (array[i >> 3] >> (i & 7)) & 1;
  const decoded = new Map();
  const rights = (name) => {
    if (!decoded.has(name)) {
      const own = data.right[name] && bytes(data.right[name]), base = bytes(data.right[""]);
      const all = data.scored[name] ? bytes(data.scored[name]) : null;
      decoded.set(name, own && {
        right: (i) => (name === "" ? bit(own, i) : bit(own, i) ^ bit(base, i)),
        scored: (i) => (all ? bit(all, i) : 1),
      });
    }
    return decoded.get(name);
  };
  const opened = new Map();
  const answersOf = (name) => {
    const one = name === null || name === undefined ? null : data.details[name];
    if (!one) return null;
    if (!opened.has(name)) {
      const logprob = new Uint16Array(bytes(one.logprob).buffer), probability = new Uint16Array(bytes(one.probability).buffer);
      const answer = new Uint32Array(bytes(one.answer).buffer), category = bytes(one.category);
      opened.set(name, {
        logprob: (i) => (logprob[i] === 65535 ? null : (-32 * logprob[i]) / 65534),
        probability: (i) => (probability[i] === 65535 ? null : probability[i] / 65534),
        answer: (i) => data.answers[answer[i]],
        category: (i) => data.categories[category[i]] ?? null,
      });
    }
    return opened.get(name);
  };
  const base = rights("");
  const items = (f) => Array.from({ length: start[f + 1] - start[f] }, (_, k) => start[f] + k);
  const bins = data.frequency ? data.frequency.bins : null;
  const range = ([lo, hi]) => (lo === hi ? whole(lo) : `${whole(lo)}–${whole(hi)}`);
  const binOf = (n) => (bins && n !== null ? bins.findIndex(([lo, hi]) => n >= lo && n <= hi) : -1);
  const whole = (n) => (n === null ? "–" : Number(n).toLocaleString("en", { maximumFractionDigits: 1 }));
  const fixedTo = (n, digits) => (n === null || n === undefined ? "–" : n.toFixed(digits).replace("-", "−"));
  const signed = (n, digits) => (n === null ? "–" : (n > 0 ? "+" : "") + fixedTo(n, digits));

  // --- state, kept in the address -----------------------------------------------------------------
  const defaults = {
    cell: data.selected, metric: "top1", mapsplit: data.splits.includes("test") && data.cells.some((c) => c.means.test) ? "test" : data.splits[0],
    q: "", relation: "", bin: "", outcome: "", category: "", split: facts.split.includes("test") ? "test" : "", sort: "", dir: "1", page: "0", fact: "", run: "0",
  };
  if (data.cells.filter((c) => c.means[defaults.mapsplit]).length < 2) defaults.mapsplit = data.splits[0];
  const state = { ...defaults };
  const readAddress = () => {
    const given = new URLSearchParams(location.hash.slice(1));
    for (const key of Object.keys(defaults)) state[key] = given.get(key) ?? defaults[key];
    if (!cells.has(state.cell)) state.cell = data.selected;
    if (!data.splits.includes(state.mapsplit)) state.mapsplit = defaults.mapsplit;
    state.run = String(both.runs.indexOf(data));
  };
  let written = null;
  const writeAddress = () => {
    const told = new URLSearchParams();
    for (const [key, value] of Object.entries(state)) if (value !== defaults[key]) told.set(key, value);
    written = told.toString();
    try { history.replaceState(null, "", written ? "#" + written : location.pathname + location.search); } catch { location.hash = written; }
  };
  const set = (changes) => { Object.assign(state, changes); writeAddress(); draw(Object.keys(changes)); };

  // --- small helpers for the page -----------------------------------------------------------------
  const element = (tag, text, attributes = {}) => {
    const node = document.createElement(tag);
    if (text !== undefined && text !== null) node.textContent = text;
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    return node;
  };
  const options = (select, entries) => select.replaceChildren(...entries.map(([value, text]) => element("option", text, { value })));
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
  const layout = (more) => ({
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: colour("text"), size: 12.5 },
    margin: { l: 55, r: 12, t: 30, b: 50 }, legend: { orientation: "h", y: 1.18, x: 0 }, hoverlabel: { font: { size: 13 } }, dragmode: false, ...more,
  });
  const axis = (title, more) => ({ title: { text: title, standoff: 6 }, gridcolor: colour("line"), zerolinecolor: colour("line"), linecolor: colour("soft"), fixedrange: true, ...more });
  const config = { responsive: true, displaylogo: false, modeBarButtons: [["toImage"]], toImageButtonOptions: { scale: 3 } };
  const shown = (value) => (value === null ? "–" : typeof value === "number" ? (Number.isInteger(value) ? whole(value) : fixedTo(value, 3)) : value);
  const download = (name, columns, rows) => {
    const quoted = (value) => (/[",\n]/.test(String(value ?? "")) ? `"${String(value).replaceAll('"', '""')}"` : String(value ?? ""));
    const text = [columns, ...rows].map((row) => row.map(quoted).join(",")).join("\n") + "\n";
    const link = element("a", null, { href: URL.createObjectURL(new Blob([text], { type: "text/csv" })), download: name + ".csv" });
    link.click();
    URL.revokeObjectURL(link.href);
  };

  // --- what the study found -----------------------------------------------------------------------
  const drawStudy = () => {
    const study = data.study;
    if (!study) return;
    $("found").hidden = false;
    $("words").replaceChildren(...study.words.map((sentence) => element("p", sentence)));
    if (study.mechanism.length > 1) {
      const more = element("details"), list = element("ul");
      list.append(...study.mechanism.slice(0, -1).map((line) => element("li", line)));
      more.append(element("summary", "Why does it change? The numbers"), list);
      $("words").append(more);
    }
    $("study-tables").replaceChildren(...tables(study.tables));
  };
  const tables = (all, open) => all.map((table) => {
      const box = element("details", null, { id: "table-" + table.name }), scroll = element("div", null, { class: "scroll", tabindex: "0" });
      const grid = element("table"), head = element("thead"), titles = element("tr"), body = element("tbody");
      const isNumber = (k) => table.rows.every((row) => row[k] === null || typeof row[k] === "number");
      titles.append(...table.columns.map((title, k) => element("th", title, { scope: "col", ...(isNumber(k) ? { class: "number" } : {}) })));
      head.append(titles);
      body.append(...table.rows.map((row) => {
        const line = element("tr");
        line.append(...row.map((value, k) => element("td", shown(value), isNumber(k) ? { class: "number" } : {})));
        return line;
      }));
      grid.append(head, body);
      scroll.append(grid);
      const button = element("button", "Download (csv)", { type: "button" });
      button.addEventListener("click", () => download(table.name, table.columns, table.rows));
      box.append(element("summary", table.title), element("p", table.hint, { class: "hint" }), scroll, button);
      box.open = open ?? false;
      return box;
    });
  const drawTwo = () => {
    if (both.runs.length < 2) return;
    $("two").hidden = false;
    $("two-tables").replaceChildren(...tables(both.side_by_side, true));
    options($("run"), both.labels.map((label, i) => [String(i), label]));
    $("run").value = state.run;
    $("run").addEventListener("change", () => { location.hash = $("run").value === "0" ? "" : "run=" + $("run").value; location.reload(); });
  };
  const drawControls = () => {
    const table = data.study?.tables.find((one) => one.name === "controls");
    if (!table) { $("control-bars").hidden = true; return; }
    const rows = [...table.rows].reverse(), paint = { "as trained": "base", LASER: "edit" };
    const wrap = (name) => (innerWidth < 700 && name.length > 22 ? name.replace(/^(.{12,}?) /, "$1<br>") : name);
    Plotly.react("control-bars", [{
      type: "bar", orientation: "h", x: rows.map((r) => r[1]), y: rows.map((r) => wrap(r[0])), marker: { color: rows.map((r) => colour(paint[r[0]] ?? "line")) },
      error_x: { type: "data", symmetric: false, array: rows.map((r) => r[3] - r[1]), arrayminus: rows.map((r) => r[1] - r[2]), color: colour("text"), thickness: 1.2, width: 3 },
      customdata: rows.map((r) => [shown(r[2]), shown(r[3]), shown(r[4])]),
      hovertemplate: "%{y}<br>accuracy %{x:.3f} [%{customdata[0]}, %{customdata[1]}]<br>loss %{customdata[2]}<extra></extra>",
    }], layout({ height: 70 + 30 * rows.length, margin: { l: 10, r: 12, t: 10, b: 40 }, xaxis: axis("accuracy on test prompts", { rangemode: "tozero" }), yaxis: { automargin: true, fixedrange: true } }), config);
    $("control-bars").setAttribute("aria-label", "Accuracy of the edit and its controls: " + table.rows.map((r) => `${r[0]} ${shown(r[1])}`).join(", "));
  };

  // --- the map -----------------------------------------------------------------------------------
  const ORDER = ["q", "k", "v", "o", "in", "gate", "out"];
  const matrices = ORDER.filter((m) => data.cells.some((c) => c.matrix === m));
  const alone = data.cells.filter((c) => c.layer !== null); // the map shows edits of one matrix at a time
  const layers = [...new Set(alone.map((c) => c.layer))].sort((a, b) => a - b);
  const rhos = [...new Set(alone.map((c) => c.rho))].sort((a, b) => a - b);
  const change = (cell, split) => {
    const k = state.metric === "top1" ? 1 : 2, one = cell.means[split], before = data.base[split];
    if (!one || !before || one[k] === null || before[k] === null) return null;
    return state.metric === "top1" ? 100 * (one[k] - before[k]) : one[k] - before[k];
  };
  const describe = (cell) => (cell.rho === null ? cell.name : `${cell.site}, ρ = ${cell.rho} (rank ${cell.rank})`);
  const drawMap = () => {
    if (!matrices.length) {
      $("map").removeAttribute("role");
      $("map").replaceChildren(element("p", "No map: the run looked at no edit of one matrix alone.", { class: "soft" }));
      return;
    }
    const width = $("map").clientWidth || 800, fit = Math.max(1, Math.floor(width / (width < 600 ? 165 : 210)));
    const rows = Math.ceil(matrices.length / fit), perRow = Math.ceil(matrices.length / rows), split = state.mapsplit;
    const values = data.cells.map((c) => change(c, split)).filter((v) => v !== null);
    const good = state.metric === "top1" ? values : values.map((v) => -v);
    const most = Math.max(...good, state.metric === "top1" ? 5 : 0.1);
    const ends = [colour("low"), colour("middle"), colour("high")];
    const scale = (state.metric === "top1" ? ends : [...ends].reverse()).map((c, i) => [i / 2, c]);
    const unit = state.metric === "top1" ? "points" : "nats";
    const traces = [], shapes = [], annotations = [];
    const more = {};
    matrices.forEach((matrix, p) => {
      const n = p ? p + 1 : "", x = "x" + n, y = "y" + n, row = Math.floor(p / perRow), column = p % perRow;
      const at = (layer, rho) => data.cells.find((c) => c.matrix === matrix && c.layer === layer && c.rho === rho);
      const grid = rhos.map((rho) => layers.map((layer) => at(layer, rho)));
      traces.push({
        type: "heatmap", xaxis: x, yaxis: y, x: layers.map(String), y: rhos.map(String), colorscale: scale, zmin: -most, zmax: most, xgap: 1, ygap: 1,
        z: grid.map((line) => line.map((c) => (c ? change(c, split) : null))), customdata: grid.map((line) => line.map((c) => (c ? c.name : null))),
        text: grid.map((line) => line.map((c) => (c ? `${describe(c)}: ${signed(change(c, split), state.metric === "top1" ? 1 : 3)} ${unit}` : ""))),
        hovertemplate: "%{text}<extra></extra>", showscale: p === 0, hoverongaps: false,
        colorbar: { title: { text: unit, side: "right" }, thickness: 10, outlinewidth: 0, len: 1, tickfont: { size: 11 } },
      });
      const gap = width < 600 ? 0.1 : 0.05, w = (1 - gap * (perRow - 1)) / perRow, vgap = 0.2, h = (1 - vgap * (rows - 1)) / rows;
      const left = column * (w + gap), top = 1 - row * (h + vgap);
      more["xaxis" + n] = axis(row === rows - 1 || p + perRow >= matrices.length ? "layer" : "", { type: "category", domain: [left, left + w], anchor: y, showgrid: false, nticks: 8 });
      more["yaxis" + n] = axis("", { type: "category", domain: [top - h, top], anchor: x, showgrid: false, showticklabels: column === 0, title: { text: column === 0 ? "ρ" : "" } });
      annotations.push({ text: `<b>${matrix}</b>`, xref: "paper", yref: "paper", x: left + w / 2, y: top, yanchor: "bottom", showarrow: false });
      for (const [name, dash] of [[data.selected, "dot"], [state.cell, "solid"]]) {
        const cell = cells.get(name);
        if (!cell || cell.matrix !== matrix) continue;
        const i = layers.indexOf(cell.layer), j = rhos.indexOf(cell.rho);
        shapes.push({ type: "rect", xref: x, yref: y, x0: i - 0.5, x1: i + 0.5, y0: j - 0.5, y1: j + 0.5, line: { width: 2.5, dash, color: colour("text") } });
      }
    });
    $("map").style.height = `${90 + rows * (width < 600 ? 150 : 200)}px`;
    const chosen = cells.get(state.cell);
    $("map").setAttribute("aria-label", `Map of the change in ${state.metric === "top1" ? "top-1" : "loss"} by layer, matrix and rho on ${split}. Chosen: ${describe(chosen)}, ${signed(change(chosen, split), 2)} ${unit}. The list of edits above holds the same.`);
    Plotly.react("map", traces, layout({ ...more, shapes, annotations, margin: { l: 48, r: 10, t: 26, b: 44 } }), config);
  };

  const drawNumbers = () => {
    const cell = cells.get(state.cell), numbers = [];
    for (const split of data.splits) {
      const one = cell.means[split], before = data.base[split];
      if (!one || !before) continue;
      numbers.push([`${split}: top-1`, `${fixedTo(before[1], 3)} → ${fixedTo(one[1], 3)}`], [`${split}: loss`, `${fixedTo(before[2], 3)} → ${fixedTo(one[2], 3)}`]);
    }
    const counts = { fixed: 0, broken: 0 }, own = rights(state.cell);
    let asked = 0;
    if (own) for (let f = 0; f < nFacts; f++) {
      if (facts.split.includes("test") && facts.split[f] !== "test") continue;
      for (const i of items(f)) {
        if (!own.scored(i) || !base.scored(i)) continue;
        asked++;
        if (own.right(i) && !base.right(i)) counts.fixed++;
        if (!own.right(i) && base.right(i)) counts.broken++;
      }
    }
    if (asked) numbers.push([`prompts fixed, of ${whole(asked)}`, whole(counts.fixed)], [`prompts broken, of ${whole(asked)}`, whole(counts.broken)]);
    $("numbers").replaceChildren(...numbers.map(([name, value]) => { const d = element("div"); d.append(element("dt", name), element("dd", value)); return d; }));
    const told = [];
    if (state.cell !== data.selected) told.push("You chose this edit; validation chose " + describe(cells.get(data.selected)) + ". If you chose it by its test score, that score is not a held-out result.");
    if (!own) told.push("This run has answers under the chosen edit of validation only: the facts below show no change.");
    $("warning").textContent = told.join(" ");
    $("warning").hidden = !told.length;
  };

  // --- frequency ---------------------------------------------------------------------------------
  const drawFrequency = () => {
    const one = data.frequency && data.frequency.cells[state.cell];
    $("frequency").hidden = !one;
    $("no-frequency").hidden = Boolean(data.frequency);
    if (!one) return;
    const x = one.cumulative.map((r) => Math.max(r[0], 0.5));
    Plotly.react("paper", [
      { x, y: one.cumulative.map((r) => r[1]), name: "as trained", mode: "lines", line: { color: colour("base"), width: 2.5, dash: "dash" } },
      { x, y: one.cumulative.map((r) => r[2]), name: "LASER", mode: "lines", line: { color: colour("edit"), width: 2.5 } },
    ], layout({ xaxis: axis("mentioned at most N times", { type: "log" }), yaxis: axis("top-1", { range: [-0.03, 1.03] }) }), config);
    const labels = bins.map(range);
    const points = (key, name, c, symbol, shift) => ({
      x: labels.map((_, i) => i + shift), y: one[key].map((v) => v[0]), name, mode: "markers", marker: { color: c, size: 9, symbol },
      error_y: { type: "data", symmetric: false, array: one[key].map((v) => (v[2] === null ? 0 : Math.abs(v[2] - v[0]))), arrayminus: one[key].map((v) => (v[1] === null ? 0 : Math.abs(v[0] - v[1]))), color: c, thickness: 1.6, width: 4 },
    });
    Plotly.react("conditional", [
      points("p_fixed_given_wrong", "fixed, of those wrong", colour("fixed"), "triangle-up", -0.1),
      points("p_broken_given_right", "broken, of those right", colour("broken"), "triangle-down", 0.1),
    ], layout({ xaxis: axis("training frequency", { tickvals: labels.map((_, i) => i), ticktext: labels, tickangle: -40 }), yaxis: axis("share", { range: [-0.03, 1.03] }), margin: { l: 55, r: 12, t: 30, b: 75 } }), config);
    $("paper").setAttribute("aria-label", "Accuracy on facts of frequency at most N, as trained and under the edit");
    $("conditional").setAttribute("aria-label", "Share fixed and share broken by frequency; the table below holds the numbers");
    $("paragraph").textContent = state.cell === data.selected ? data.frequency.paragraph ?? "" : "";
    const table = element("table", null, { class: "plain" }), head = element("tr");
    for (const title of ["frequency", "prompts", "as trained", "edit", "fixed, of those wrong", "broken, of those right"]) head.append(element("th", title, { scope: "col" }));
    table.append(head);
    bins.forEach((bin, i) => {
      const row = element("tr");
      row.append(element("th", range(bin), { scope: "row" }), element("td", whole(bin[2])));
      for (const key of ["base_top1", "edit_top1", "p_fixed_given_wrong", "p_broken_given_right"]) {
        const [v, lo, hi] = one[key][i];
        row.append(element("td", v === null ? "–" : `${fixedTo(v, 3)} [${fixedTo(lo, 3)}, ${fixedTo(hi, 3)}]`));
      }
      table.append(row);
    });
    $("bins").replaceChildren(table);
  };

  // --- facts -------------------------------------------------------------------------------------
  const searched = facts.id.map((_, f) => [facts.subject[f], facts.object[f], ...facts.aliases[f], ...facts.prompts[f], facts.id[f]].join("\n").toLowerCase());
  const frequency = (f) => (facts.n_both ? facts.n_both[f] : null);
  const outcome = (f) => {
    const own = rights(state.cell);
    let before = 0, after = 0, n = 0;
    for (const i of items(f)) {
      if (!own || !own.scored(i) || !base.scored(i)) continue;
      before += base.right(i); after += own.right(i); n++;
    }
    const label = !n ? "unknown" : after > before ? "fixed" : after < before ? "broken" : after === n ? "right" : "wrong";
    return { before, after, n, label };
  };
  const discardedSays = (f) => {
    const answers = answersOf(cells.get(state.cell).discarded);
    return answers ? { category: answers.category(start[f]), answer: answers.answer(start[f]) } : { category: null, answer: null };
  };
  const COLUMNS = [
    ["subject", "Subject", (f) => facts.subject[f]],
    ["relation", "Relation", (f) => data.relations[facts.relation[f]]],
    ["object", "Answer", (f) => facts.object[f]],
    ["n_both", "Frequency", frequency, true],
    ["before", "Right before", (f) => { const o = outcome(f); return o.n ? o.before / o.n : -1; }, true],
    ["after", "Right after", (f) => { const o = outcome(f); return o.n ? o.after / o.n : -1; }, true],
    ["outcome", "Under the edit", (f) => outcome(f).label],
    ["discarded", "Discarded part answers", (f) => discardedSays(f).answer ?? ""],
  ].filter(([key]) => key !== "n_both" || facts.n_both);
  const PAGE = innerWidth < 700 ? 12 : 50;
  let found = [];
  const find = () => {
    const words = state.q.toLowerCase();
    found = [];
    for (let f = 0; f < nFacts; f++) {
      if (words && !searched[f].includes(words)) continue;
      if (state.relation !== "" && String(facts.relation[f]) !== state.relation) continue;
      if (state.split && facts.split[f] !== state.split) continue;
      if (state.bin !== "" && String(binOf(frequency(f))) !== state.bin) continue;
      if (state.outcome && outcome(f).label !== state.outcome) continue;
      if (state.category && discardedSays(f).category !== state.category) continue;
      found.push(f);
    }
    const column = COLUMNS.find(([key]) => key === state.sort);
    if (column) {
      const key = new Map(found.map((f) => [f, column[2](f)])), sign = Number(state.dir);
      const compare = column[3] ? (a, b) => a - b : new Intl.Collator("en").compare;
      found.sort((a, b) => sign * compare(key.get(a), key.get(b)) || a - b);
    }
  };
  const drawFacts = () => {
    find();
    const pages = Math.max(1, Math.ceil(found.length / PAGE)), page = Math.min(Math.max(0, Number(state.page) || 0), pages - 1);
    const all = data.about.n_facts > nFacts ? ` (a sample of the run's ${whole(data.about.n_facts)} facts, seed ${data.about.sample_seed})` : "";
    $("count").textContent = `${whole(found.length)} of ${whole(nFacts)} facts${all}`;
    $("page").textContent = `page ${page + 1} of ${pages}`;
    $("previous").disabled = page === 0;
    $("next").disabled = page >= pages - 1;
    for (const th of $("facts").tHead.rows[0].cells) th.setAttribute("aria-sort", th.dataset.key !== state.sort ? "none" : state.dir === "1" ? "ascending" : "descending");
    const rows = [];
    for (const f of found.slice(page * PAGE, (page + 1) * PAGE)) {
      const o = outcome(f), says = discardedSays(f), row = element("tr"), isOpen = facts.id[f] === state.fact;
      for (const [key, title, value, number] of COLUMNS) {
        const cell = element("td", null, { "data-label": title, ...(number ? { class: "number" } : {}) });
        if (key === "subject") {
          const button = element("button", (isOpen ? "▾ " : "▸ ") + value(f), { type: "button", "aria-expanded": String(isOpen) });
          button.addEventListener("click", () => { set({ fact: isOpen ? "" : facts.id[f] }); document.querySelector(`#facts tr[data-fact="${f}"] button`)?.focus(); });
          cell.append(button);
        } else if (key === "before" || key === "after") cell.textContent = o.n ? `${o[key]} of ${o.n}` : "–";
        else if (key === "outcome") { cell.textContent = ANY[o.label]; cell.className = o.label; }
        else if (key === "discarded") { cell.textContent = says.answer ? `${says.answer}${says.category ? ` (${CATEGORY[says.category]})` : ""}` : "–"; }
        else if (key === "n_both") cell.textContent = whole(value(f));
        else cell.textContent = value(f);
        row.append(cell);
      }
      row.dataset.fact = f;
      rows.push(row);
      if (isOpen) { row.className = "open"; rows.push(detail(f)); }
    }
    $("facts").tBodies[0].replaceChildren(...rows);
    drawCurves();
  };
  const detail = (f) => {
    const row = element("tr", null, { class: "detail" }), cell = element("td", null, { colspan: COLUMNS.length }), chosen = cells.get(state.cell);
    row.append(cell);
    cell.append(element("h3", `${facts.subject[f]} → ${facts.object[f]}`));
    const told = [`id ${facts.id[f]}`, `split ${facts.split[f] || "none"}`];
    if (facts.aliases[f].length) told.push("also right: " + facts.aliases[f].join(", "));
    for (const [key, name] of [["n_both", "frequency of both names together"], ["n_subject", "of the subject"], ["n_object", "of the object"]]) if (facts[key]) told.push(`${name}: ${whole(facts[key][f])}`);
    cell.append(element("p", told.join(" · "), { class: "soft" }));
    const table = element("table"), head = element("thead"), titles = element("tr"), body = element("tbody");
    const columns = [["as trained", ""], ["LASER", state.cell], ["discarded part alone", chosen.discarded]];
    for (const title of ["prompt", ...columns.map(([t]) => t)]) titles.append(element("th", title, { scope: "col" }));
    head.append(titles); table.append(head, body); cell.append(table);
    items(f).forEach((i, p) => {
      const line = element("tr");
      line.append(element("td", facts.prompts[f][p] + " …", { "data-label": "prompt" }));
      for (const [title, name] of columns) {
        const answers = answersOf(name), box = element("td", null, { "data-label": title });
        if (!answers || answers.answer(i) === "") {
          box.textContent = name === null ? "not run: laser-interp search … --control discarded computes it" : data.details[name] || !rights(name) ? "not run" : "answers of this edit are not in the page";
          box.className = "soft";
        } else {
          const first = element("span", null, { class: "answer" });
          first.append(element("b", answers.answer(i)));
          const p1 = answers.probability(i), c = answers.category(i), lp = answers.logprob(i);
          if (p1 !== null) first.append(` ${fixedTo(p1, 3)}`);
          box.append(first, element("br"), element("span", [c && CATEGORY[c], lp !== null && `log p(truth) ${lp <= -32 ? "≤ −32" : fixedTo(lp, 2)}`].filter(Boolean).join(" · "), { class: "soft" }));
        }
        line.append(box);
      }
      body.append(line);
    });
    const two = element("div", null, { class: "two" });
    two.append(element("div", null, { id: "curve-rho", class: "curve", role: "figure" }), element("div", null, { id: "curve-alpha", class: "curve", role: "figure" }));
    cell.append(two);
    return row;
  };
  const drawCurves = () => {
    const f = facts.id.indexOf(state.fact);
    if (f < 0 || !$("curve-rho")) return;
    const chosen = cells.get(state.cell), mean = (name) => {
      const answers = answersOf(name);
      const values = answers ? items(f).map(answers.logprob).filter((v) => v !== null) : [];
      return values.length ? values.reduce((a, b) => a + b) / values.length : null;
    };
    const trained = mean("");
    const draw = (id, points, title, told, more, missing) => {
      const shown = points.filter(([, y]) => y !== null).sort((a, b) => a[0] - b[0]);
      if (shown.length < 2) { $(id).removeAttribute("role"); $(id).replaceChildren(element("p", missing, { class: "soft" })); $(id).style.height = "auto"; return; }
      const x = shown.map(([v]) => v);
      $(id).setAttribute("aria-label", `log p of the truth against ${told}: ` + shown.map(([v, y]) => `${v}: ${fixedTo(y, 2)}`).join("; "));
      Plotly.react(id, [
        { x, y: shown.map(([, y]) => y), mode: "lines+markers", name: "edited", line: { color: colour("edit"), width: 2.5 }, marker: { size: 8 } },
        { x: [x[0], x[x.length - 1]], y: [trained, trained], mode: "lines", name: "as trained", line: { color: colour("base"), dash: "dash", width: 2 } },
      ], layout({ xaxis: axis(title, more), yaxis: axis("log p(truth)"), margin: { l: 60, r: 12, t: 30, b: 45 } }), config);
    };
    const apart = rhos.reduce((kept, rho) => (kept.length && rho < 1.8 * kept[kept.length - 1] ? kept : [...kept, rho]), []);
    draw("curve-rho", data.cells.filter((c) => c.site === chosen.site).map((c) => [c.rho, mean(c.name)]), `ρ kept at ${chosen.site}`, "rho", { type: "log", tickvals: apart, ticktext: apart.map(String), tickangle: 0 }, "The curve against ρ is not in the page.");
    const injected = Object.entries(chosen.injected).map(([name, alpha]) => [alpha, mean(name)]);
    draw("curve-alpha", injected.length ? [[0, mean(state.cell)], ...injected.filter(([a]) => a !== 0 && a !== 1), [1, trained]] : [], "α (0: LASER, 1: as trained)", "alpha", {}, "No curve against α: the run has no injected parts at this ρ (sweep with --alpha).");
  };

  // --- the rest ----------------------------------------------------------------------------------
  const drawAbout = () => {
    const about = data.about;
    $("title").textContent = `LASER on ${about.model ?? "a model"}`;
    document.title = $("title").textContent;
    $("subtitle").textContent = `${about.facts ?? "facts"}: ${whole(about.n_facts)} facts, ${whole(about.n_prompts)} prompts. Validation chose ${describe(cells.get(data.selected))}.`;
    const text = [];
    if (about.counts) text.push(`Frequencies: ${about.counts}.`);
    if (about.n_facts > nFacts) text.push(`The table holds a random sample of ${whole(nFacts)} of ${whole(about.n_facts)} facts; map and frequency figures are of all.`);
    if (!about.answers_of_all) text.push(`For want of room the page holds the answers of ${whole(about.answers_of)} edits; for all others, whether each answer is right.`);
    if (data.frequency) text.push("Intervals are at 95 % and hold for clusters of prompts by subject.");
    text.push(...about.notes);
    $("about-text").textContent = text.join(" ");
    for (const [key, value] of Object.entries(about)) {
      if (["notes", "counts"].includes(key) || value === null || (Array.isArray(value) && !value.length)) continue;
      const row = element("tr");
      row.append(element("th", key, { scope: "row" }), element("td", typeof value === "object" ? JSON.stringify(value) : String(value)));
      $("about").append(row);
    }
  };
  const CONTROLS = { cell: "cell", metric: "metric", "map-split": "mapsplit", search: "q", relation: "relation", bin: "bin", outcome: "outcome", category: "category", split: "split" };
  const FACT_FILTERS = ["q", "relation", "bin", "outcome", "category", "split"];
  const fill = () => {
    const groups = new Map();
    for (const cell of data.cells) {
      if (!groups.has(cell.site)) groups.set(cell.site, element("optgroup", null, { label: cell.site }));
      groups.get(cell.site).append(element("option", `${describe(cell)}${cell.name === data.selected ? " — chosen" : ""}`, { value: cell.name }));
    }
    $("cell").replaceChildren(...groups.values());
    options($("map-split"), data.splits.map((s) => [s, s]));
    options($("relation"), [["", "any"], ...data.relations.map((r, i) => [String(i), r])]);
    options($("bin"), [["", "any"], ...(bins ?? []).map((b, i) => [String(i), range(b)])]);
    options($("category"), [["", "any"], ...data.categories.map((c) => [c, CATEGORY[c]])]);
    options($("split"), [["", "any"], ...[...new Set(facts.split)].filter(Boolean).map((s) => [s, s])]);
    $("bin").parentElement.hidden = !bins;
    $("facts").tHead.rows[0].replaceChildren(...COLUMNS.map(([key, title, , number]) => {
      const th = element("th", null, { scope: "col", "data-key": key, ...(number ? { class: "number" } : {}) }), button = element("button", title, { type: "button" });
      button.addEventListener("click", () => set({ sort: key, dir: state.sort === key && state.dir === "1" ? "-1" : "1", page: "0" }));
      th.append(button);
      return th;
    }));
    let waiting;
    for (const [id, key] of Object.entries(CONTROLS)) {
      const change = () => set({ [key]: $(id).value, ...(FACT_FILTERS.includes(key) ? { page: "0" } : {}) });
      if (id === "search") $(id).addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(change, 120); });
      else $(id).addEventListener("change", change);
    }
    $("facts-csv").addEventListener("click", () => download("facts", COLUMNS.map(([, title]) => title), found.map((f) => COLUMNS.map(([, , value]) => value(f)))));
    $("back").addEventListener("click", () => set({ cell: data.selected }));
    $("reset").addEventListener("click", () => set({ ...Object.fromEntries(FACT_FILTERS.map((k) => [k, defaults[k]])), page: "0", fact: "" }));
    $("previous").addEventListener("click", () => set({ page: String(Number(state.page) - 1) }));
    $("next").addEventListener("click", () => set({ page: String(Number(state.page) + 1) }));
  };
  const draw = (changed) => {
    const any = (...keys) => !changed || keys.some((key) => changed.includes(key));
    for (const [id, key] of Object.entries(CONTROLS)) if ($(id).value !== state[key]) $(id).value = state[key];
    $("back").disabled = state.cell === data.selected;
    if (any("cell", "metric", "mapsplit")) drawMap();
    if (!changed) drawControls();
    if (any("cell")) { drawNumbers(); drawFrequency(); }
    if (any("cell", "sort", "dir", "page", "fact", ...FACT_FILTERS)) drawFacts();
  };
  const theme = (name) => {
    document.documentElement.dataset.theme = name;
    $("theme").textContent = name === "dark" ? "Light" : "Dark";
  };
  const dark = matchMedia("(prefers-color-scheme: dark)");
  theme(dark.matches ? "dark" : "light");
  $("theme").addEventListener("click", () => { theme(document.documentElement.dataset.theme === "dark" ? "light" : "dark"); draw(); });
  dark.addEventListener("change", () => { theme(dark.matches ? "dark" : "light"); draw(); });
  addEventListener("hashchange", () => { if (location.hash.slice(1) !== written) { if (both.runs[runAsked()] === data) arrive(); else location.reload(); } });
  const arrive = () => { // a link to a fact opens the page of the table that it is on
    readAddress();
    find();
    const at = found.indexOf(facts.id.indexOf(state.fact));
    if (at >= 0) state.page = String(Math.floor(at / PAGE));
    draw();
  };
  let width = innerWidth;
  addEventListener("resize", () => { if (innerWidth !== width) { width = innerWidth; drawMap(); drawControls(); } });
  fill();
  drawAbout();
  drawStudy();
  readAddress();
  drawTwo();
  arrive();
  $("map").on("plotly_click", (event) => { const name = event.points[0]?.customdata; if (name) set({ cell: name }); });
  document.documentElement.dataset.ready = "yes";
})();
