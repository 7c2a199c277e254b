// The moving parts of the document: figures in the colours of the page, choices, sliders, contents, printing.
"use strict";
(() => {
  const root = document.documentElement;
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const PRINTED = 660; // pixels: the width of a printed page
  const WIDE = 640; // pixels from which the names of lines stand at their ends
  let printing = false;

  // Colours

  const parts = (colour) => {
    const hex = /^#(..)(..)(..)/.exec(colour);
    return hex ? hex.slice(1).map((h) => parseInt(h, 16)) : colour.match(/[\d.]+/g).slice(0, 3).map(Number);
  };
  const mix = (a, b, share) => {
    const [p, q] = [parts(a), parts(b)];
    return `rgb(${p.map((v, i) => Math.round(v + (q[i] - v) * share)).join(",")})`;
  };
  const luminance = (colour) => {
    const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    const [r, g, b] = parts(colour).map((v) => linear(v / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = (a, b) => {
    const [low, high] = [luminance(a), luminance(b)].sort((x, y) => x - y);
    return (high + 0.05) / (low + 0.05);
  };
  // A colour that stands out from the paper: on a dark one brightened, which keeps its hue, then moved to the ink.
  const legible = (colour, look, least) => {
    const gain = look.dark ? 255 / Math.max(1, ...parts(colour)) : 1;
    const bright = `rgb(${parts(colour).map((v) => Math.round(v * gain)).join(",")})`;
    let moved = colour;
    for (let step = 0; step <= 40 && contrast(moved, look.paper) < least; step++) {
      moved = step <= 20 ? mix(colour, bright, step / 20) : mix(bright, look.ink, (step - 20) / 20);
    }
    return moved;
  };
  const seeThrough = (colour, opacity) => `rgba(${parts(colour).join(",")},${opacity})`;
  const lookOf = (box) => {
    const style = getComputedStyle(box);
    const [ink, paper] = [style.color, style.backgroundColor];
    return { ink, paper, rule: style.borderTopColor, font: style.fontFamily, dark: luminance(paper) < luminance(ink) };
  };

  // Figures

  // Plotly reads tags in its texts.
  const plain = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const read = (box) => (box.spec ??= JSON.parse(box.querySelector('script[type="application/json"]').textContent));
  const chosen = (box, name) => box.querySelector(`[data-choice="${name}"] [aria-pressed="true"]`)?.dataset.value;
  const layoutOf = (look, width, height) => ({
    width, height, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", showlegend: false,
    font: { family: look.font, size: 13, color: look.ink },
    hoverlabel: {
      bgcolor: look.paper, bordercolor: look.ink, align: "left", font: { family: look.font, size: 13, color: look.ink },
    },
  });
  const CONFIG = { displayModeBar: false, scrollZoom: false, doubleClick: "reset" };
  const widthOf = (plot) => (printing ? PRINTED : plot.clientWidth);
  const digits = (value, count = 5) =>
    value == null ? "–" : String(Number(value.toPrecision(count))).replace("-", "−");

  const measuring = document.createElement("canvas").getContext("2d");
  const shortened = (text, room) => {
    if (measuring.measureText(text).width <= room) return text;
    let short = text;
    while (short && measuring.measureText(`${short}…`).width > room) short = short.slice(0, -1);
    return `${short}…`;
  };

  // Heights in pixels, in order, moved as little as needed to be `gap` apart.
  const apart = (heights, gap, low, high) => {
    const order = heights.map((h, i) => i).sort((a, b) => heights[a] - heights[b]);
    const moved = heights.slice();
    for (let round = 0; round < 200; round++) {
      let moving = false;
      for (let k = 1; k < order.length; k++) {
        const lack = gap - (moved[order[k]] - moved[order[k - 1]]);
        if (lack > 0.1) {
          moved[order[k]] += lack / 2;
          moved[order[k - 1]] -= lack / 2;
          moving = true;
        }
      }
      order.forEach((i) => (moved[i] = Math.min(Math.max(moved[i], low), high)));
      if (!moving) break;
    }
    return moved;
  };

  const keyOf = (tag, name, colour) => {
    const key = document.createElement(tag), swatch = document.createElement("i");
    swatch.style.background = colour;
    key.append(swatch, name);
    return key;
  };

  const drawCurves = (box) => {
    const payload = read(box), term = payload.terms[chosen(box, "term")], look = lookOf(box);
    const plot = box.querySelector(".plot"), width = widthOf(plot), wide = width >= WIDE;
    const height = printing ? 300 : wide ? 400 : 300;
    const lines = term.lines
      .map((line, i) => ({ line, name: payload.names[i], colour: legible(payload.colours[i], look, look.dark ? 3.5 : 3) }))
      .filter(({ line }) => line && line.mean.some((v) => v != null));
    measuring.font = `13px ${look.font}`;
    const room = Math.min(220, width / 4);
    const ends = lines.map(({ name }) => (lines.length > 1 ? shortened(name, room) : ""));
    const right = wide ? 16 + Math.max(...ends.map((text) => measuring.measureText(text).width)) : 12;
    const margin = { l: 58, r: right, t: 34, b: 46 };
    const traces = [], reach = [];
    for (const { line: { epochs: x, mean, deviation: sd, num_seeds: n }, name, colour } of lines) {
      const low = mean.map((m, i) => (m == null ? null : m - (sd[i] ?? 0)));
      const high = mean.map((m, i) => (m == null ? null : m + (sd[i] ?? 0)));
      reach.push(...low.filter((v) => v != null), ...high.filter((v) => v != null));
      const band = { x, mode: "lines", line: { width: 0 }, hoverinfo: "skip" };
      if (sd.some((v) => v != null)) {
        traces.push({ ...band, y: low }, { ...band, y: high, fill: "tonexty", fillcolor: seeThrough(colour, 0.18) });
      }
      traces.push({
        x, y: mean, name: plain(name), mode: x.length > 12 ? "lines" : "lines+markers",
        line: { color: colour, width: 2.2 }, marker: { size: 6, color: colour },
        customdata: x.map((e, i) => [plain(name), digits(e), digits(mean[i]), digits(sd[i], 2), n]),
        hovertemplate: "<b>%{customdata[0]}</b><br>epoch %{customdata[1]}<br>mean %{customdata[2]}<br>" +
          "sd %{customdata[3]}, n = %{customdata[4]}<extra></extra>",
      });
    }
    const pad = 0.04 * (Math.max(...reach) - Math.min(...reach) || 1);
    const range = [Math.min(...reach) - pad, Math.max(...reach) + pad];
    const tall = height - margin.t - margin.b;
    const last = ({ line }) => line.mean.findLast((v) => v != null);
    const at = apart(lines.map((l) => (tall * (last(l) - range[0])) / (range[1] - range[0])), 16, 4, tall - 4);
    const names = lines.map((l, i) => ({
      text: plain(ends[i]), x: 1, y: at[i] / tall, xref: "paper", yref: "paper", xanchor: "left", yanchor: "middle",
      xshift: 7, showarrow: false, font: { color: legible(l.colour, look, 4.5), size: 13 },
    }));
    const axis = {
      color: look.ink, gridcolor: look.rule, zeroline: false, linecolor: look.rule, ticks: "outside",
      tickcolor: look.rule, fixedrange: !wide,
    };
    const x = lines.flatMap(({ line }) => line.epochs), [first, final] = [Math.min(...x), Math.max(...x)];
    const beyond = 0.015 * (final - first) || 0.5;
    const few = new Set(x).size <= 8 ? { tickmode: "array", tickvals: [...new Set(x)] } : {};
    const unit = {
      text: `<b>${term.name}</b>, ${term.unit}`, x: 0, y: 1, xref: "paper", yref: "paper", xanchor: "left",
      yanchor: "bottom", xshift: -50, yshift: 8, showarrow: false,
    };
    const keys = wide || lines.length < 2 ? [] : lines.map(({ name, colour }) => keyOf("span", name, colour));
    box.querySelector(".legend").replaceChildren(...keys);
    return Plotly.react(plot, traces, {
      ...layoutOf(look, width, height), margin, hovermode: "closest",
      xaxis: {
        ...axis, ...few, title: { text: "epoch", standoff: 8, font: { size: 13 } }, showgrid: false,
        range: [first - beyond, final + beyond],
      },
      yaxis: { ...axis, range, nticks: 6 }, annotations: wide ? [...names, unit] : [unit],
    }, CONFIG);
  };

  const clouds = JSON.parse(document.getElementById("clouds").textContent);
  const NAMED = 16; // groups whose names are written into a cloud
  const REACH = 1050; // coordinates of clouds are within 1,000

  // Boxes [x, y, width, height] around their centres, from above: each moves down until it covers none before it.
  const below = (boxes) => {
    const placed = [];
    for (const box of boxes.slice().sort((a, b) => a[1] - b[1])) {
      const covers = (p) => Math.abs(p[0] - box[0]) < (p[2] + box[2]) / 2 && Math.abs(p[1] - box[1]) < 0.99 * p[3];
      const covered = () => placed.find(covers);
      for (let other = covered(); other; other = covered()) box[1] = other[1] + other[3];
      placed.push(box);
    }
    return boxes;
  };

  const drawFeatures = (box) => {
    const spec = read(box), by = chosen(box, "by"), look = lookOf(box);
    const space = clouds[spec.spaces[chosen(box, "space")].cloud];
    const groups = by === "label" ? spec.labels : space.clusters;
    const names = by === "label" ? spec.names : space.letters;
    const colours = (by === "label" ? spec.colours : space.colours).map((c) => legible(c, look, 3));
    const members = names.map(() => []);
    if (groups.length) groups.forEach((g, i) => members[g].push(i));
    else members.splice(0, members.length, spec.labels.map((_, i) => i));
    const alone = box.alone?.by === by ? box.alone.group : null;
    const seen = (g) => (alone == null || alone === g) && members[g].length > 0;
    const size = Math.min(5, Math.max(2.5, 160 / Math.sqrt(spec.points)));
    const traceOf = (coordinates, type, scaled, faint) => members.map((rows, g) => ({
      ...Object.fromEntries(coordinates.map((values, d) => ["xyz"[d], rows.map((i) => values[i])])),
      type, mode: "markers", hoverinfo: seen(g) ? "none" : "skip",
      marker: {
        color: colours[g] ?? look.ink, size: scaled * size, opacity: seen(g) ? 1 : faint, line: { width: 0 },
      },
    }));
    const [solid, flat] = [box.querySelector(".solid"), box.querySelector(".flat")];
    const wide = (plot) => (printing ? PRINTED / 2 - 20 : plot.clientWidth);
    const tall = (plot) => (printing ? PRINTED / 2 - 20 : plot.clientHeight);
    const wall = (d) => ({
      range: [Math.min(...space.pca[d]) - 30, Math.max(...space.pca[d]) + 30],
      title: { text: `PC ${d + 1}`, font: { size: 12 } }, showticklabels: false, ticks: "", color: look.ink,
      showspikes: false, gridcolor: look.rule, zerolinecolor: look.rule, showbackground: true,
      backgroundcolor: mix(look.paper, look.rule, 0.3), nticks: 5,
    });
    box.querySelector(".share").textContent = space.variance.length
      ? `${space.variance.slice(0, 3).map((v) => v.toFixed(1)).join(" + ")} % of variance` : "";
    const done = Plotly.react(solid, traceOf(space.pca, "scatter3d", 0.6, 0), {
      ...layoutOf(look, wide(solid), tall(solid)), margin: { l: 0, r: 0, t: 0, b: 0 }, uirevision: "turned",
      scene: {
        xaxis: wall(0), yaxis: wall(1), zaxis: wall(2), aspectmode: "data", uirevision: "turned",
        bgcolor: "rgba(0,0,0,0)", camera: { eye: { x: 1.7, y: 1.7, z: 0.95 }, center: { x: 0, y: 0, z: -0.1 } },
      },
    }, CONFIG);
    const median = (values) => values.slice().sort((a, b) => a - b)[values.length >> 1];
    const scale = (2 * REACH) / Math.min(wide(flat) - 8, tall(flat) - 8); // units of a pixel, the same both ways
    const half = (pixels) => (scale * pixels) / 2;
    const bare = (pixels) => ({ visible: false, fixedrange: true, range: [-half(pixels), half(pixels)] });
    const shown = members.map((rows, g) => g).filter((g) => seen(g) && groups.length);
    measuring.font = `12px ${look.font}`;
    const places = below(shown.length > NAMED ? [] : shown.map((g) => [
      ...[0, 1].map((d) => (d ? -1 : 1) * median(members[g].map((i) => space.tsne[d][i]))),
      (measuring.measureText(names[g]).width + 8) * scale, 21 * scale,
    ]));
    Plotly.react(flat, traceOf(space.tsne, "scatter", 1, 0.12), {
      ...layoutOf(look, wide(flat), tall(flat)), margin: { l: 4, r: 4, t: 4, b: 4 }, hovermode: "closest",
      hoverdistance: 12, dragmode: false, xaxis: bare(wide(flat) - 8), yaxis: bare(tall(flat) - 8),
      annotations: places.map(([x, y], k) => ({
        x, y: -y, text: plain(names[shown[k]]), showarrow: false, bgcolor: seeThrough(look.paper, 0.85),
        bordercolor: colours[shown[k]], borderpad: 2, font: { size: 12, color: look.ink },
      })),
    }, CONFIG);
    const show = (event) => {
      const point = event.points[0], i = members[point.curveNumber]?.[point.pointNumber];
      const cluster = space.clusters.length ? `cluster ${space.letters[space.clusters[i]]}` : "";
      if (i !== undefined) peek(spec, i, [spec.names[spec.labels[i]], cluster]);
    };
    for (const plot of [solid, flat]) {
      plot.removeAllListeners("plotly_hover");
      plot.removeAllListeners("plotly_unhover");
      plot.on("plotly_hover", show);
      plot.on("plotly_unhover", () => (peeking.hidden = true));
    }
    const legend = box.querySelector(".legend");
    legend.replaceChildren(...names.map((name, g) => {
      const button = keyOf("button", name, colours[g]);
      button.type = "button";
      button.setAttribute("aria-pressed", String(alone === g));
      button.onclick = () => {
        box.alone = alone === g ? null : { by, group: g };
        drawFeatures(box);
        legend.children[g].focus();
      };
      return button;
    }));
    return done;
  };

  // The image of a point, beside the pointer.
  const peeking = document.getElementById("peek"), pointer = { x: 0, y: 0 };
  const place = () => {
    const { offsetWidth: w, offsetHeight: h } = peeking;
    peeking.style.left = `${Math.max(4, pointer.x + 18 + w > innerWidth ? pointer.x - 18 - w : pointer.x + 18)}px`;
    peeking.style.top = `${Math.max(4, Math.min(pointer.y - h / 2, innerHeight - h - 4))}px`;
  };
  const peek = ({ thumbs }, i, words) => {
    const [picture, said] = peeking.children;
    picture.className = thumbs ? `picture ${thumbs.name}` : "";
    if (thumbs) {
      const part = (k, count) => (count > 1 ? (100 * k) / (count - 1) : 0);
      picture.style.backgroundSize = `${100 * thumbs.columns}% ${100 * thumbs.rows}%`;
      const [column, row] = [i % thumbs.columns, Math.floor(i / thumbs.columns)];
      picture.style.backgroundPosition = `${part(column, thumbs.columns)}% ${part(row, thumbs.rows)}%`;
    }
    said.textContent = words.filter(Boolean).join(", ");
    peeking.hidden = false;
    place();
  };
  document.addEventListener("pointermove", (event) => {
    [pointer.x, pointer.y] = [event.clientX, event.clientY];
    if (!peeking.hidden) place();
  });
  document.addEventListener("scroll", () => (peeking.hidden = true), { passive: true });

  const drawPaths = (box) => {
    const { alphas, chances } = read(box), step = Number(box.querySelector("input").value);
    box.style.setProperty("--at", step + 1); // the original stands before the first
    box.querySelector("output").textContent = alphas[step];
    box.querySelector("input").setAttribute("aria-valuetext", `alpha ${alphas[step]}`);
    all(".path", box).forEach((path, i) => {
      if (!chances[i]?.length) return;
      path.querySelector(".chance i").style.width = `${100 * chances[i][step]}%`;
      path.querySelector(".said").textContent = chances[i][step].toFixed(2);
    });
  };
  for (const box of all('[data-draw="paths"]')) {
    box.querySelector("input").addEventListener("input", () => drawPaths(box));
    drawPaths(box);
  }

  const DRAW = { curves: drawCurves, features: drawFeatures };
  const boxes = all('[data-draw="curves"], [data-draw="features"]');
  const draw = (box) => {
    if (!printing && !box.clientWidth) return undefined; // in a panel that is not seen
    box.drawn = true;
    return DRAW[box.dataset.draw](box);
  };
  const redraw = () => boxes.filter((box) => box.drawn).forEach(draw);
  const watch = new IntersectionObserver((seen) => {
    seen.filter((entry) => entry.isIntersecting && !entry.target.drawn).forEach((entry) => draw(entry.target));
  }, { rootMargin: "600px" });
  boxes.forEach((box) => watch.observe(box));

  document.addEventListener("click", (event) => {
    const button = event.target.closest(".choice button");
    if (!button) return;
    all("button", button.parentElement).forEach((b) => b.setAttribute("aria-pressed", String(b === button)));
    if (button.dataset.panel === undefined) return draw(button.closest("[data-draw]"));
    const panels = all(":scope > .panel", button.closest(".panels"));
    panels.forEach((panel, i) => (panel.hidden = i !== Number(button.dataset.panel)));
    all("[data-draw]", panels[button.dataset.panel]).filter((box) => boxes.includes(box)).forEach(draw);
  });

  let resized, width = innerWidth;
  addEventListener("resize", () => {
    if (width === innerWidth) return; // the bars of a phone come and go
    width = innerWidth;
    clearTimeout(resized);
    resized = setTimeout(redraw, 120);
  });

  // Light and dark

  const dark = matchMedia("(prefers-color-scheme: dark)");
  const remembered = (theme) => {
    try {
      if (theme) localStorage.setItem("vaelab-theme", theme);
      return localStorage.getItem("vaelab-theme");
    } catch {
      return null; // a page from a file may not keep anything
    }
  };
  const wear = (theme) => {
    if (theme) root.dataset.theme = theme;
    else delete root.dataset.theme;
    redraw();
  };
  document.getElementById("theme").addEventListener("click", () => {
    const now = root.dataset.theme ?? (dark.matches ? "dark" : "light");
    wear(now === "dark" ? "light" : "dark");
    remembered(root.dataset.theme);
  });
  dark.addEventListener("change", redraw);
  if (remembered()) wear(remembered());

  // Printing: light, everything open and drawn at the width of the page

  let before = null;
  addEventListener("beforeprint", () => {
    const [closed, hidden] = [all("details:not([open])"), all(".panel[hidden]")];
    before = { theme: root.dataset.theme, closed, hidden };
    closed.forEach((details) => (details.open = true));
    hidden.forEach((panel) => (panel.hidden = false)); // what is not laid out is not drawn
    printing = true;
    root.dataset.theme = "light";
    boxes.forEach(draw);
  });
  addEventListener("afterprint", () => {
    printing = false;
    before?.closed.forEach((details) => (details.open = false));
    before?.hidden.forEach((panel) => (panel.hidden = true));
    wear(before?.theme);
  });

  // Contents

  const contents = document.querySelector("nav details");
  if (innerWidth < 1100) contents.open = false;
  const links = new Map(all("nav a").map((a) => [a.getAttribute("href").slice(1), a]));
  const inView = new IntersectionObserver((seen) => {
    for (const { target, isIntersecting } of seen) {
      if (!isIntersecting) continue;
      links.forEach((a) => a.removeAttribute("aria-current"));
      links.get(target.id)?.setAttribute("aria-current", "true");
    }
  }, { rootMargin: "-20% 0px -75% 0px" });
  all("main section").forEach((section) => inView.observe(section));
})();
