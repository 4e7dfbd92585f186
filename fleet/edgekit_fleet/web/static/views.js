// From what the store knows to what stands on the page.

import { clockTime, duration, h, milliseconds, percent, widthOf } from "./dom.js";
import { distributionPlot, latencyPlot, miniDistribution, sparkline, timeline, whisker } from "./plots.js";
import { predictionsByRelease } from "./store.js";

const SIGNS = { good: "✓", busy: "◌", bad: "✕", idle: "·", offline: "○" };
const WORDS = { good: "runs what it shall", busy: "at work", bad: "failed or taken back", idle: "nothing asked", offline: "not connected" };
const VERDICTS = { PASS: ["good", "pass"], FAIL: ["bad", "fail"], INCONCLUSIVE: ["warn", "not proven"] };
const ROWS_SHOWN = 200;

export function tone(state) {
  if (["completed", "passed", "committed", "good"].includes(state)) return "good";
  if (["failed", "rolled_back", "aborted", "rollback_failed", "rolling_back", "aborting", "reverted"].includes(state)) return "bad";
  if (["paused", "inconclusive", "awaiting_approval", "skipped"].includes(state)) return "warn";
  if (["pending", "planned", "draft", "cancelled", "superseded", "scheduled"].includes(state)) return "idle";
  return "busy";
}

const words = (state) => String(state).replaceAll("_", " ");
const chip = (kind, text) => h("span", { class: `chip ${kind}` }, text);
const tile = (name, value, more, id) => h("div", { class: "tile" }, h("div", { class: "name" }, name), h("div", { class: "value", id }, value), h("div", { class: "more" }, more));

// Windows that ended within the last `seconds` of the newest one.
function recentPoints(store, seconds) {
  const all = [...store.points.values()].flatMap((points) => points.slice(-12));
  const newest = Math.max(0, ...all.map((point) => point.at));
  return all.filter((point) => point.at > newest - seconds);
}

export function summary(store) {
  const devices = [...store.devices.values()];
  const online = devices.filter((device) => device.presence === "online").length;
  const recent = recentPoints(store, 15);
  const perDevice = new Map();
  for (const point of recent) {
    const sum = perDevice.get(point.device) ?? { requests: 0, seconds: 0 };
    perDevice.set(point.device, { requests: sum.requests + point.requests, seconds: sum.seconds + point.seconds });
  }
  const rate = [...perDevice.values()].reduce((sum, d) => sum + d.requests / (d.seconds || 1), 0);
  const answered = recent.reduce((sum, point) => sum + point.requests, 0);
  const failed = recent.reduce((sum, point) => sum + point.model_errors, 0);
  const slowest = Math.max(0, ...recent.map((point) => point.p99 ?? 0));
  const releases = new Map();
  for (const device of devices) for (const slot of device.slots) releases.set(slot.release, (releases.get(slot.release) ?? 0) + 1);
  const serving = [...releases.entries()].sort((a, b) => b[1] - a[1]);
  return [
    tile("Devices connected", `${online} of ${devices.length}`, devices.length ? `${new Set(devices.map((d) => d.hardware)).size} kinds of hardware` : "none enrolled yet", "tile-online"),
    tile("Serving", serving.length ? serving[0][0] : "nothing yet", serving.map(([release, count]) => `${release} on ${count}`).slice(0, 3).join(", "), "tile-serving"),
    tile("Inferences", `${rate.toFixed(rate < 10 ? 1 : 0)} /s`, `${answered} in the last windows`, "tile-rate"),
    tile("Model errors", answered || failed ? percent(failed / Math.max(1, answered + failed)) : "–", `${failed} in the last windows`, "tile-errors"),
    tile("Slowest p99", slowest ? milliseconds(slowest) : "–", "over all devices", "tile-p99"),
  ];
}

function ringWords(ring) {
  const parts = [`${ring.good} of ${ring.members} took it`];
  if (ring.bad) parts.push(`${ring.bad} failed`);
  if (ring.back) parts.push(`${ring.back} taken back`);
  return parts.join(", ");
}

function ringCard(ring, now) {
  const share = (count) => `width:${ring.members ? (100 * count) / ring.members : 0}%`;
  const bar = h("div", { class: "bar", "aria-hidden": "true" }, h("i", { class: "g", "data-width": share(ring.good) }), h("i", { class: "b", "data-width": share(ring.bad) }));
  const left = ring.soak_until && !ring.closed && ring.soak_until > now ? `soaks ${duration(ring.soak_until - now)} more` : "";
  const took = ring.closed && ring.opened ? `took ${duration(ring.closed - ring.opened)}` : ring.opened ? `since ${clockTime(ring.opened)}` : "not opened";
  const live = ring.opened && !ring.closed;
  return h(
    "li", { class: live ? "ring now" : "ring" },
    h("div", { class: "row" }, h("strong", {}, ring.name), chip(tone(ring.state), words(ring.state))),
    bar,
    h("div", { class: "small" }, ringWords(ring)),
    h("div", { class: "small" }, [took, left].filter(Boolean).join(" · ")),
  );
}

function gateRow(ring, gate) {
  const [kind, text] = VERDICTS[String(gate.verdict).toUpperCase()] ?? ["idle", words(gate.verdict)];
  return h(
    "tr", {},
    h("td", {}, ring.name),
    h("td", {}, h("strong", {}, gate.name), gate.stratum ? h("div", { class: "small" }, gate.stratum) : null),
    h("td", {}, chip(kind, text)),
    h("td", { class: "reason" }, gate.reason),
    h("td", { class: "num" }, gate.n),
    h("td", {}, whisker(gate)),
  );
}

export function rollout(store, chosen, now) {
  const all = store.rolloutsInOrder();
  const title = h("h2", { id: "rollout-title" }, "Rollout");
  if (!all.length) return [title, h("p", { class: "empty" }, "No rollout yet. Start one with edgekit rollout start NAME@VERSION --slot SLOT.")];
  const item = store.rollouts.get(chosen) ?? all[0];
  const kind = tone(item.state);
  const from = item.previous ? `${item.previous} → ${item.release}` : item.release;
  const gates = item.rings.flatMap((ring) => ring.gates.map((gate) => gateRow(ring, gate)));
  const head = ["Ring", "Gate", "Verdict", "Why", "n", "Effect, bounds, limit"].map((name) => h("th", { scope: "col", class: name === "n" ? "num" : "" }, name));
  return [
    h("div", { class: "row" }, title, h("strong", {}, from), chip(kind, words(item.state)), h("span", { class: "small" }, `slot ${item.slot} · ${item.id}`)),
    item.reason ? h("p", { class: `why ${kind}` }, item.reason) : null,
    h("ol", { class: "rings" }, item.rings.map((ring) => ringCard(ring, now))),
    timeline(item.rings, tone, now, widthOf("rollout", 900)),
    gates.length
      ? h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Gates" }, h("table", {}, h("thead", {}, h("tr", {}, head)), h("tbody", {}, gates)))
      : h("p", { class: "empty" }, "No gate has been judged yet."),
    all.length > 1
      ? h("div", { class: "others", role: "group", "aria-label": "Rollouts" }, h("span", { class: "small" }, "Rollouts:"), all.slice(0, 8).map((other) => h("button", { type: "button", "data-rollout": other.id, "aria-pressed": String(other.id === item.id) }, `${other.release} ${words(other.state)}`)))
      : null,
  ];
}

function cell(device, selected) {
  const label = `${device.id}, ${device.hardware}, ${words(device.step)}, ${WORDS[device.status] ?? device.status}`;
  return h("button", { type: "button", class: `cell ${device.status}`, "data-device": device.id, "aria-pressed": String(device.id === selected), "aria-label": label, title: label }, h("span", { "aria-hidden": "true" }, SIGNS[device.status] ?? "?"), h("span", { class: "id" }, device.id));
}

export function fleet(store, selected) {
  const devices = store.devicesInOrder();
  const title = h("h2", { id: "fleet-title" }, "Devices by hardware and ring");
  if (!devices.length) return [title, h("p", { class: "empty" }, "No device is enrolled. Make a token with edgekit device token.")];
  const rows = [...new Set(devices.map((device) => device.hardware))].sort();
  const current = store.rolloutsInOrder()[0];
  const ringOf = (device) => (current && device.rollout === current.id ? device.ring : current ? "not reached" : "no rollout");
  const named = current ? current.rings.map((ring) => ring.name) : [];
  const used = [...named, "not reached", "no rollout"].filter((ring) => devices.some((device) => ringOf(device) === ring));
  const body = rows.map((hardware) =>
    h("tr", {}, h("th", { scope: "row" }, hardware), used.map((ring) => h("td", {}, h("div", { class: "cells" }, devices.filter((d) => d.hardware === hardware && ringOf(d) === ring).map((d) => cell(d, selected)))))),
  );
  const legend = Object.entries(WORDS).map(([status, text]) => h("span", {}, h("i", { class: `cell swatch ${status}`, "aria-hidden": "true" }), `${SIGNS[status]} ${text} (${devices.filter((d) => d.status === status).length})`));
  return [
    title,
    h("div", { class: devices.length > 120 ? "scroll dense" : "scroll" }, h("table", { class: "matrix" }, h("thead", {}, h("tr", {}, h("td", {}), used.map((ring) => h("th", { scope: "col" }, ring)))), h("tbody", {}, body))),
    h("div", { class: "legend" }, legend),
  ];
}

function probeBlock(probe) {
  const right = [...probe.right].filter((bit) => bit === "1").length;
  const bits = [...probe.right].slice(0, 256).map((bit) => h("i", { class: bit === "1" ? "" : "no" }));
  const kind = probe.probe === "truth" ? "ground truth" : "package probes";
  return h(
    "div", {},
    h("div", { class: "row" }, chip(probe.passed ? "good" : "bad", probe.passed ? "passed" : "missed"), h("span", {}, `${kind}, ${probe.release}`), h("span", { class: "small" }, `${right} of ${probe.n} right, limit ${probe.limit}, ${probe.policy}, ${clockTime(probe.at)}`)),
    h("div", { class: "bits", role: "img", "aria-label": `${right} of ${probe.n} items right` }, bits),
  );
}

function slotBlock(store, device, slot, width) {
  const points = store.pointsOf(device.id, slot.slot);
  const latency = latencyPlot(points, width);
  const outputs = [...new Set(points.flatMap((point) => Object.keys(point.predictions)))];
  const labels = store.slots.get(slot.slot)?.labels ?? {};
  const plots = outputs.map((output) => {
    const [now, before] = predictionsByRelease(points, output);
    const plot = now && distributionPlot(now, before, labels[output], width);
    return plot && [
      h("h3", {}, `Answers by class (${output})`), plot,
      h("div", { class: "key" }, h("span", {}, h("i", { class: "box" }), now.release), before ? h("span", {}, h("i", { class: "outline" }), `before: ${before.release}`) : null),
    ];
  });
  return [
    h("h3", {}, `Slot ${slot.slot}`),
    h("dl", { class: "facts" },
      h("dt", {}, "Serves"), h("dd", {}, h("strong", {}, slot.release), slot.since ? ` since ${clockTime(slot.since)}` : ""),
      h("dt", {}, "Variant"), h("dd", {}, slot.variant, " ", h("code", {}, slot.digest.slice(0, 19))),
      h("dt", {}, "Runs on"), h("dd", {}, [slot.runtime, slot.backend].filter(Boolean).join(", ") || "–"),
      slot.previous ? [h("dt", {}, "Before"), h("dd", {}, slot.previous)] : null,
    ),
    latency ? [h("h3", {}, "Latency"), latency, h("div", { class: "key" }, h("span", {}, h("i", {}), "p50"), h("span", {}, h("i", { class: "two" }), "p99"))] : h("p", { class: "empty" }, "No telemetry yet."),
    plots,
  ];
}

export function detail(store, selected) {
  const device = store.devices.get(selected);
  const title = h("h2", { id: "detail-title" }, device ? device.id : "Device");
  if (!device) return [title, h("p", { class: "empty" }, "Choose a device to see what it runs, what it answers and how fast.")];
  const width = widthOf("detail", 480);
  const runtimes = Object.entries(device.runtimes).map(([name, version]) => `${name} ${version}`).join(", ");
  const own = Object.entries(device.labels).map(([name, value]) => `${name}=${value}`).join(", ");
  return [
    h("div", { class: "row" }, title, chip(device.status === "offline" ? "" : device.status, words(device.step)), chip(device.presence === "online" ? "good" : "", device.presence)),
    device.reason ? h("p", { class: `why ${device.status === "bad" ? "bad" : ""}` }, `${device.reason.text} (${device.reason.code})`) : null,
    device.clock_ok ? null : h("p", { class: "why warn" }, "Its clock is not set: it serves, and installs nothing."),
    h("dl", { class: "facts" },
      h("dt", {}, "Hardware"), h("dd", {}, `${device.hardware}${device.machine ? `, ${device.machine}` : ""}`),
      h("dt", {}, "Runtimes"), h("dd", {}, runtimes || "–"),
      own ? [h("dt", {}, "Labels"), h("dd", {}, own)] : null,
      h("dt", {}, "Ring"), h("dd", {}, device.ring ? `${device.ring} of rollout ${device.rollout}` : "none yet"),
      h("dt", {}, "Agent"), h("dd", {}, device.agent || "–"),
      device.seen ? [h("dt", {}, "Last heard"), h("dd", {}, clockTime(device.seen))] : null,
    ),
    device.slots.map((slot) => slotBlock(store, device, slot, width)),
    device.probes.length ? [h("h3", {}, "Probes on this device"), device.probes.map(probeBlock)] : null,
  ];
}

export function table(store) {
  const devices = store.devicesInOrder();
  const title = h("h2", { id: "table-title" }, "What each device answers");
  if (!devices.length) return [title, h("p", { class: "empty" }, "Nothing yet.")];
  const rows = devices.slice(0, ROWS_SHOWN).flatMap((device) =>
    (device.slots.length ? device.slots : [null]).map((slot) => {
      const points = slot ? store.pointsOf(device.id, slot.slot) : [];
      const last = points[points.length - 1];
      const output = last && Object.keys(last.predictions)[0];
      const [now] = output ? predictionsByRelease(points.slice(-20), output) : [];
      return h(
        "tr", {},
        h("td", {}, h("button", { type: "button", class: "pick", "data-device": device.id }, device.id)),
        h("td", {}, chip(device.status === "offline" ? "" : device.status, words(device.step))),
        h("td", { class: "fixed" }, slot ? slot.release : "–"),
        h("td", { class: "fixed" }, slot ? slot.variant : "–"),
        h("td", { class: "num", "data-requests": device.id }, last ? `${(last.requests / (last.seconds || 1)).toFixed(1)} /s` : "–"),
        h("td", { class: "num" }, milliseconds(last?.p50)),
        h("td", { class: "num" }, milliseconds(last?.p99)),
        h("td", {}, sparkline(points)),
        h("td", {}, now ? miniDistribution(now.counts) : null),
      );
    }),
  );
  const names = ["Device", "State", "Release", "Variant", "Rate", "p50", "p99", "p99 lately", "Answers by class"];
  const head = names.map((name) => h("th", { scope: "col", class: ["Rate", "p50", "p99"].includes(name) ? "num" : "" }, name));
  return [
    title,
    h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Devices" }, h("table", {}, h("thead", {}, h("tr", {}, head)), h("tbody", {}, rows))),
    devices.length > ROWS_SHOWN ? h("p", { class: "hint" }, `The first ${ROWS_SHOWN} of ${devices.length}; the map above has all.`) : null,
  ];
}

export function log(store) {
  const title = h("h2", { id: "log-title" }, "What happened");
  if (!store.log.length) return [title, h("p", { class: "empty" }, "Nothing yet.")];
  const lines = store.log.slice(-60).reverse();
  return [title, h("ol", { class: "log", tabindex: 0 }, lines.map((line) => h("li", {}, h("time", {}, clockTime(line.at)), h("span", { class: line.tone }, line.text))))];
}
