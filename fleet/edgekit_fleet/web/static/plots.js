// Small SVG plots drawn from numbers; each carries its content in words for those who cannot see it.

import { clockTime, duration, milliseconds, percent, s } from "./dom.js";

const niceTop = (value) => {
  const power = 10 ** Math.floor(Math.log10(value || 1));
  return power * ([1, 1.5, 2, 3, 4, 5, 7.5, 10].find((step) => step * power >= value) ?? 10);
};

const frame = (width, height, label, ...children) =>
  s("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label }, s("title", {}, label), children);

// p50 and p99 over time, a dashed line where the release changed.
export function latencyPlot(points, width) {
  const height = 168;
  const [left, right, top, bottom] = [52, 12, 18, 22];
  const drawn = points.filter((point) => point.p50 !== null && point.p99 !== null);
  if (drawn.length < 2) return null;
  const [start, end] = [drawn[0].at, drawn[drawn.length - 1].at];
  const highest = niceTop(Math.max(...drawn.map((point) => point.p99)) * 1.05);
  const x = (at) => left + ((at - start) / Math.max(end - start, 1e-9)) * (width - left - right);
  const y = (value) => height - bottom - (value / highest) * (height - top - bottom);
  const path = (name) => drawn.map((point, i) => `${i ? "L" : "M"}${x(point.at).toFixed(1)} ${y(point[name]).toFixed(1)}`).join("");
  const lines = [0, 0.5, 1].map((share) => [
    s("line", { class: "grid", x1: left, x2: width - right, y1: y(share * highest), y2: y(share * highest) }),
    s("text", { x: left - 6, y: y(share * highest) + 4, "text-anchor": "end" }, share ? milliseconds(share * highest) : "0"),
  ]);
  const changes = drawn.filter((point, i) => i > 0 && point.release !== drawn[i - 1].release).slice(-6);
  const marks = changes.map((point) => {
    const late = x(point.at) > width - 120;
    return [
      s("line", { class: "mark-line", x1: x(point.at), x2: x(point.at), y1: top - 4, y2: height - bottom }),
      s("text", { class: "mark-text", x: x(point.at) + (late ? -4 : 4), y: top - 6, "text-anchor": late ? "end" : "start" }, point.release),
    ];
  });
  const newest = drawn[drawn.length - 1];
  const label = `Latency over ${duration(end - start)}: p50 ${milliseconds(newest.p50)}, p99 ${milliseconds(newest.p99)} now`;
  const times = [
    s("text", { x: left, y: height - 6 }, clockTime(start)),
    s("text", { x: width - right, y: height - 6, "text-anchor": "end" }, clockTime(end)),
  ];
  const ends = [
    s("circle", { class: "point99", cx: x(end), cy: y(newest.p99), r: 3 }),
    s("circle", { class: "point50", cx: x(end), cy: y(newest.p50), r: 3 }),
  ];
  return frame(width, height, label, lines, marks, s("path", { class: "p99", d: path("p99") }), s("path", { class: "p50", d: path("p50") }), times, ends);
}

// Shares of answers per class: bars for the release serving now, outlines for the one before it.
export function distributionPlot(now, before, labels, width) {
  const height = 150;
  const [left, right, top, bottom] = [52, 12, 10, 22];
  const total = now.counts.reduce((sum, count) => sum + count, 0);
  if (!total) return null;
  const earlier = before && before.counts.length === now.counts.length ? before.counts : null;
  const earlierTotal = earlier ? earlier.reduce((sum, count) => sum + count, 0) : 0;
  const shares = now.counts.map((count) => count / total);
  const earlierShares = earlierTotal ? earlier.map((count) => count / earlierTotal) : [];
  const highest = Math.min(1, niceTop(Math.max(...shares, ...earlierShares, 0.01)));
  const step = (width - left - right) / shares.length;
  const gap = step > 8 ? Math.min(8, step * 0.25) : 0.5;
  const y = (share) => height - bottom - (share / highest) * (height - top - bottom);
  const grid = [0, 0.5, 1].map((part) => [
    s("line", { class: "grid", x1: left, x2: width - right, y1: y(part * highest), y2: y(part * highest) }),
    s("text", { x: left - 6, y: y(part * highest) + 4, "text-anchor": "end" }, percent(part * highest)),
  ]);
  const every = Math.ceil((shares.length * 26) / (width - left - right));
  const bars = shares.map((share, i) => {
    const x = left + i * step + gap / 2;
    const name = labels?.[i] ?? String(i);
    return s(
      "g",
      {},
      s("title", {}, `${name}: ${percent(share)}${earlierTotal ? `, before ${percent(earlierShares[i])}` : ""}`),
      s("rect", { class: "col", x, width: step - gap, y: y(share), height: Math.max(0, height - bottom - y(share)), rx: step > 12 ? 2 : 0 }),
      earlierTotal ? s("rect", { class: "before", x, width: step - gap, y: y(earlierShares[i]), height: Math.max(0, height - bottom - y(earlierShares[i])) }) : null,
      i % every === 0 ? s("text", { x: x + (step - gap) / 2, y: height - 6, "text-anchor": "middle" }, name.slice(0, 12)) : null,
    );
  });
  const most = shares.indexOf(Math.max(...shares));
  const label = `Answers of ${now.release}: ${total}, most often ${labels?.[most] ?? most} with ${percent(shares[most])}`;
  return frame(width, height, label, grid, bars);
}

// p99 of the last windows as a line a hand high.
export function sparkline(points, width = 96, height = 22) {
  const drawn = points.filter((point) => point.p99 !== null).slice(-40);
  if (drawn.length < 2) return null;
  const highest = Math.max(...drawn.map((point) => point.p99)) || 1;
  const d = drawn.map((point, i) => `${i ? "L" : "M"}${((i / (drawn.length - 1)) * (width - 2) + 1).toFixed(1)} ${(height - 2 - (point.p99 / highest) * (height - 4)).toFixed(1)}`);
  return frame(width, height, `p99 of the last ${drawn.length} windows, at most ${milliseconds(highest)}`, s("path", { class: "p99", d: d.join("") }));
}

// Prediction shares as a row of small bars.
export function miniDistribution(counts, width = 96, height = 22) {
  const total = counts.reduce((sum, count) => sum + count, 0);
  if (!total) return null;
  const highest = Math.max(...counts);
  const step = width / counts.length;
  const bars = counts.map((count, i) => {
    const tall = (count / highest) * (height - 2);
    return s("rect", { class: "col", x: (i * step + step * 0.1).toFixed(1), width: (step * 0.8).toFixed(1), y: (height - tall).toFixed(1), height: tall.toFixed(1) });
  });
  return frame(width, height, `${total} answers over ${counts.length} classes`, s("line", { class: "grid", x1: 0, x2: width, y1: height - 0.5, y2: height - 0.5 }), bars);
}

// Effect, its one-sided bounds and the limit on one line; a bound that is not known runs off the edge.
export function whisker(gate, width = 120, height = 20) {
  const { effect, lower, upper, limit } = gate;
  if (![effect, limit].every(Number.isFinite)) return null;
  const known = [effect, limit, 0, lower, upper].filter(Number.isFinite);
  const [low, high] = [Math.min(...known), Math.max(...known)];
  const x = (value) => 8 + ((value - low) / (high - low || 1)) * (width - 16);
  const [from, to] = [Number.isFinite(lower) ? x(lower) : 0, Number.isFinite(upper) ? x(upper) : width];
  const middle = height / 2;
  const tick = (place, bound) => (Number.isFinite(bound) ? s("line", { class: "whisker", x1: place, x2: place, y1: middle - 4, y2: middle + 4 }) : null);
  const shown = (value) => (Number.isFinite(value) ? Number(value.toPrecision(3)) : "unknown");
  return frame(
    width, height, `effect ${shown(effect)}, bounds ${shown(lower)} and ${shown(upper)}, limit ${shown(limit)}`,
    s("line", { class: "grid", x1: 0, x2: width, y1: middle, y2: middle }),
    s("line", { class: "whisker", x1: from, x2: to, y1: middle, y2: middle }),
    tick(from, lower), tick(to, upper),
    s("circle", { class: "effect", cx: x(effect), cy: middle, r: 3 }),
    s("line", { class: "limit", x1: x(limit), x2: x(limit), y1: 1, y2: height - 1 }),
  );
}

// When each ring was deploying and soaking.
export function timeline(rings, tones, now, width) {
  const opened = rings.filter((ring) => ring.opened);
  if (!opened.length) return null;
  const [left, rowHeight] = [84, 24];
  const start = Math.min(...opened.map((ring) => ring.opened));
  const running = opened.some((ring) => !ring.closed);
  const end = Math.max(start + 5, ...opened.map((ring) => ring.closed ?? ring.soak_until ?? 0), running ? now : 0);
  const x = (at) => left + ((at - start) / (end - start)) * (width - left - 10);
  const height = rings.length * rowHeight + 20;
  const rows = rings.map((ring, i) => {
    const y = i * rowHeight + 4;
    const till = ring.closed ?? Math.max(now, ring.opened ?? 0);
    const bar = ring.opened
      ? s("rect", { class: ring.closed ? `fill-${tones(ring.state)}` : "deploying", x: x(ring.opened), width: Math.max(3, x(till) - x(ring.opened)), y, height: 14, rx: 3 })
      : null;
    const soak = ring.opened && !ring.closed && ring.soak_until && ring.soak_until > now
      ? s("rect", { class: "soaking", x: x(now), width: Math.max(0, x(ring.soak_until) - x(now)), y, height: 14, rx: 3 })
      : null;
    return [s("text", { x: 0, y: y + 11 }, ring.name.slice(0, 13)), s("rect", { class: "track", x: left, width: width - left - 10, y, height: 14, rx: 3 }), bar, soak];
  });
  const axis = [
    s("text", { x: left, y: height - 4 }, clockTime(start)),
    s("text", { x: width - 10, y: height - 4, "text-anchor": "end" }, clockTime(end)),
  ];
  return frame(width, height, `Ring timeline over ${duration(end - start)}`, rows, axis);
}
