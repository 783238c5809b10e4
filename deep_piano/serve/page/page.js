// The page: what is shown follows what the server tells.

import {$, ask, follow, kept, make, quietly, safely, say, tell} from "./ask.js";
import {closePiece, setUpListen, showPiece, shownPiece} from "./listen.js";
import {setUpPlay} from "./play.js";
import {set, setUpShape, wanted} from "./shape.js";
import {chosen, setUpTrim, showSeed} from "./trim.js";

const jobs = new Map();
let pieces = [];

// ------------------------------------------------------------------ jobs

const active = job => job.state === "waiting" || job.state === "running";

const drawJobs = () => {
  const going = [...jobs.values()].filter(active);
  $("jobs").hidden = !going.length;
  const drawn = new Map([...$("jobs").children].map(row => [row.dataset.job, row]));
  $("jobs").replaceChildren(...going.map(job => {
    const row = drawn.get(job.job) ?? make("div", {className: "job row"},
      make("progress", {max: 100, ariaLabel: `Progress of ${job.about.name}`}), make("span", {className: "clock"}),
      make("button", {textContent: "Cancel", ariaLabel: `Cancel ${job.about.name}`,
        onclick: safely(() => ask("DELETE", `/api/jobs/${job.job}`))}));
    row.dataset.job = job.job;
    row.children[0].value = job.percent;
    const doing = job.state === "waiting" ? "waiting" : `${job.stage} ${job.percent} %`;
    row.children[1].textContent = `${job.about.name}: ${doing}`;
    return row;
  }));
};

// What this tab asked for is opened when it is there.
const opened = async job => {
  if (kept("job") !== job.job || active(job)) return;
  kept("job", null);
  if (job.state === "failed") throw new Error(job.message);
  if (job.state === "cancelled") return;
  if (job.kind === "look") await showSeed(job.result.seed);
  else await openPiece(job.result.piece);
};

const asked = id => {
  kept("job", id);
  const job = jobs.get(id);  // it may have ended already
  if (job) quietly(opened)(job);
};

// ------------------------------------------------------------------ pieces

const openPiece = async id => {
  await refresh();
  const piece = pieces.find(one => one.id === id);
  if (piece) await showPiece(piece);
};

const remove = async piece => {
  if (!confirm(`Delete “${piece.title}” and its takes?`)) return;
  await ask("DELETE", `/api/pieces/${piece.id}`);
  closePiece(piece.id);
};

const drawPieces = () => {
  $("pieces").replaceChildren(...pieces.map(piece => {
    const starred = piece.takes.some(take => take.starred) ? "★ " : "";
    const made = new Date(1000 * piece.made).toLocaleString([], {dateStyle: "medium", timeStyle: "short"});
    return make("li", {className: "row"},
      make("button", {className: "name", textContent: starred + piece.title, onclick: safely(() => showPiece(piece))}),
      make("span", {className: "soft", textContent: `${made}, ${piece.takes.length} take${piece.takes.length > 1 ? "s" : ""}`}),
      make("button", {textContent: "Delete", ariaLabel: `Delete ${piece.title}`, onclick: safely(() => remove(piece))}));
  }));
  if (!pieces.length) $("pieces").append(make("li", {className: "soft", textContent: "None yet."}));
};

const refresh = async () => {
  const state = await ask("GET", "/api/state");
  pieces = state.pieces;
  drawPieces();
  if (shownPiece() && !pieces.some(one => one.id === shownPiece().id)) closePiece(shownPiece().id);
  return state;
};

// ------------------------------------------------------------------ what is asked for

const compose = async remix => {
  const facts = {...chosen(), ...(remix && {remix}), controls: wanted(remix)};
  asked((await tell("POST", "/api/pieces", facts)).job);
};

const again = async () => {
  if (!chosen()) throw new Error("Choose a recording first.");
  set("random_state", (wanted().random_state ?? 0) + 1);
  await compose(shownPiece()?.window.remix);
};

const changed = quietly(async facts => {
  if (facts.kind === "pieces") return refresh();
  jobs.set(facts.job, facts);
  drawJobs();
  if (facts.kind === "piece" && facts.state === "done") await refresh();
  return opened(facts);
});

const start = async () => {
  const state = await refresh();
  $("stored").textContent = `Stored in ${state.folder}. ${state.where}`;
  setUpShape(state.controls);
  setUpPlay({asked, example: async () => asked((await ask("POST", "/api/example")).job)});
  setUpTrim();
  setUpListen(state.score, asked);
  for (const button of $("makes").children)
    button.onclick = safely(() => compose(button.dataset.remix));
  $("again").onclick = safely(again);
  for (const job of state.jobs) jobs.set(job.job, job);
  follow(state.last, {changed, reload: () => location.reload()});
  drawJobs();
  // A reload goes on where this tab was.
  if (kept("seed")) await showSeed(kept("seed")).catch(() => kept("seed", null));
  const piece = pieces.find(one => one.id === kept("piece"));
  if (piece) await showPiece(piece);
  const mine = jobs.get(kept("job"));
  if (mine) await opened(mine);
};

start().catch(say);
