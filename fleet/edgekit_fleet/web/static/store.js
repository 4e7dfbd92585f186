// What the page knows, kept up to date from snapshots and changes. No DOM here.

const POINTS_KEPT = 240;
const LOG_KEPT = 100;

export class Store {
  constructor() {
    this.clear();
  }

  clear() {
    this.service = null;
    this.slots = new Map();
    this.devices = new Map();
    this.rollouts = new Map();
    this.points = new Map();
    this.log = [];
  }

  snapshot(body) {
    this.clear();
    this.service = body.service[0] ?? null;
    for (const slot of body.slot) this.slots.set(slot.name, slot);
    for (const device of body.device) this.devices.set(device.id, device);
    for (const rollout of body.rollout) this.rollouts.set(rollout.id, rollout);
    for (const point of body.point) this.addPoint(point);
    this.log = body.log.slice(-LOG_KEPT);
  }

  change({ kind, key, body }) {
    if (kind === "point") this.addPoint(body);
    else if (kind === "log") this.log = [...this.log, body].slice(-LOG_KEPT);
    else if (kind === "service") this.service = body;
    else {
      const members = { slot: this.slots, device: this.devices, rollout: this.rollouts }[kind];
      if (!members) return; // a newer service may tell more than this page knows
      if (body === null) members.delete(key);
      else members.set(key, body);
    }
  }

  addPoint(point) {
    const points = this.points.get(point.device) ?? [];
    points.push(point);
    this.points.set(point.device, points.slice(-POINTS_KEPT));
  }

  // Older points of one device, fetched when it is opened.
  addHistory(device, points) {
    const known = this.points.get(device) ?? [];
    const oldest = known.length ? known[0].at : Infinity;
    this.points.set(device, [...points.filter((point) => point.at < oldest), ...known].slice(-POINTS_KEPT));
  }

  pointsOf(device, slot) {
    return (this.points.get(device) ?? []).filter((point) => point.slot === slot);
  }

  devicesInOrder() {
    const order = new Intl.Collator("en", { numeric: true });
    return [...this.devices.values()].sort((a, b) => order.compare(a.id, b.id));
  }

  rolloutsInOrder() {
    return [...this.rollouts.values()].sort((a, b) => (b.created ?? 0) - (a.created ?? 0));
  }
}

// Sums of prediction counts per release, the newest release first; only outputs with the same bins.
export function predictionsByRelease(points, output) {
  const sums = new Map();
  for (const point of points) {
    const counts = point.predictions[output];
    if (!counts) continue;
    const sum = sums.get(point.release);
    if (!sum) sums.set(point.release, { counts: [...counts], at: point.at });
    else if (sum.counts.length === counts.length) {
      counts.forEach((count, index) => (sum.counts[index] += count));
      sum.at = Math.max(sum.at, point.at);
    }
  }
  return [...sums.entries()].map(([release, sum]) => ({ release, ...sum })).sort((a, b) => b.at - a.at);
}
