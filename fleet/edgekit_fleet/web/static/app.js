// The page: takes the feed into the store and draws, at most every 250 ms.

import { show } from "./dom.js";
import { Feed } from "./feed.js";
import { Store } from "./store.js";
import * as views from "./views.js";

const store = new Store();
const chosen = { device: location.hash.slice(1) ? decodeURIComponent(location.hash.slice(1)) : null, rollout: null };
const CONNECTION = { live: "live", wait: "connecting", lost: "reconnecting", stale: "no contact" };
let skew = 0; // service clock minus this clock, seconds
let pending = null;

const serviceNow = () => Date.now() / 1000 + skew;

function draw() {
  pending = null;
  document.getElementById("tenant").textContent = store.service ? store.service.tenant : "";
  show("summary", views.summary(store));
  show("rollout", views.rollout(store, chosen.rollout, serviceNow()));
  show("fleet", views.fleet(store, chosen.device));
  show("detail", views.detail(store, chosen.device));
  show("table", views.table(store));
  show("log", views.log(store));
  // widths are set through the object model: the policy of the page allows no style attributes
  for (const bar of document.querySelectorAll("[data-width]")) bar.style.width = bar.dataset.width.replace("width:", "");
}

function later() {
  if (pending === null) pending = setTimeout(draw, document.hidden ? 1000 : 120);
}

function connection(state, age) {
  const broker = store.service && !store.service.connected;
  const text = state === "live" && broker ? "broker lost" : CONNECTION[state];
  const pill = document.getElementById("connection");
  pill.className = `pill ${state === "live" ? (broker ? "warn" : "live") : state === "stale" ? "stale" : "wait"}`;
  const words = document.getElementById("connection-text");
  if (words.textContent !== text) words.textContent = text; // announced by screen readers, so only on change
  const place = document.getElementById("age");
  place.textContent = age === null ? "no update yet" : `last update ${Math.floor(age)} s ago`;
  place.className = state === "stale" ? "age stale" : "age";
  document.documentElement.dataset.state = state;
}

async function choose(device) {
  chosen.device = device;
  history.replaceState(null, "", `#${encodeURIComponent(device)}`);
  draw();
  const answer = await fetch(`v1/events/history?device=${encodeURIComponent(device)}`);
  if (!answer.ok) return;
  store.addHistory(device, (await answer.json()).points);
  later();
}

document.addEventListener("click", (event) => {
  const device = event.target.closest("[data-device]");
  if (device) choose(device.dataset.device);
  const rollout = event.target.closest("[data-rollout]");
  if (rollout) {
    chosen.rollout = rollout.dataset.rollout;
    draw();
  }
});

// Arrow keys walk through the cells.
document.addEventListener("keydown", (event) => {
  const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
  if (!step || !event.target.classList?.contains("cell")) return;
  const cells = [...document.querySelectorAll("button.cell")];
  cells[(cells.indexOf(event.target) + step + cells.length) % cells.length].focus();
  event.preventDefault();
});

new ResizeObserver(later).observe(document.getElementById("main"));

new Feed("v1/events", {
  onSnapshot(body) {
    skew = body.at - Date.now() / 1000;
    store.snapshot(body);
    if (chosen.device === null && store.devices.size) chosen.device = store.devicesInOrder()[0].id;
    later();
  },
  onChanges(changes) {
    for (const change of changes) store.change(change);
    later();
  },
  onState: connection,
});
setInterval(later, 1000); // soak times count down
