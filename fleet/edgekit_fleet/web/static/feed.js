// The connection: snapshot first, then changes; says when it is stale. EventSource reconnects and sends
// Last-Event-ID by itself; a feed that is silent for too long is closed and opened anew.

const STALE_AFTER = 12; // seconds; the service beats every 5
const REOPEN_AFTER = 30;

export class Feed {
  constructor(url, { onSnapshot, onChanges, onState }) {
    this.url = url;
    this.handlers = { onSnapshot, onChanges, onState };
    this.last = null;
    this.lastId = "";
    this.open();
    setInterval(() => this.check(), 500);
  }

  open() {
    this.source?.close();
    const after = this.lastId ? `?after=${encodeURIComponent(this.lastId)}` : "";
    this.source = new EventSource(this.url + after);
    this.opened = performance.now();
    for (const kind of ["snapshot", "changes", "beat"]) this.source.addEventListener(kind, (event) => this.take(kind, event));
    this.source.addEventListener("error", () => this.tell());
  }

  take(kind, event) {
    this.last = performance.now();
    if (event.lastEventId) this.lastId = event.lastEventId;
    const body = JSON.parse(event.data);
    if (kind === "snapshot") this.handlers.onSnapshot(body);
    if (kind === "changes") this.handlers.onChanges(body.changes);
    this.tell();
  }

  // Seconds since the service was last heard, null before the first time.
  get age() {
    return this.last === null ? null : (performance.now() - this.last) / 1000;
  }

  check() {
    const silent = (performance.now() - Math.max(this.last ?? 0, this.opened)) / 1000;
    if (silent > REOPEN_AFTER || this.source.readyState === EventSource.CLOSED) this.open();
    this.tell();
  }

  tell() {
    const age = this.age;
    const connected = this.source.readyState === EventSource.OPEN;
    const state = age !== null && age > STALE_AFTER ? "stale" : connected && age !== null ? "live" : age === null ? "wait" : "lost";
    this.handlers.onState(state, age);
  }
}
