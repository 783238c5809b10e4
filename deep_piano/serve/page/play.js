// A recording comes: a file, the microphone, or a MIDI keyboard.

import {$, clock, safely, say, send} from "./ask.js";

const LONGEST_S = 60;

// ------------------------------------------------------------------ MIDI messages as a file

const variable = number => {  // a number of MIDI's variable length
  const bytes = [number & 127];
  while ((number >>= 7)) bytes.unshift(number & 127 | 128);
  return bytes;
};

// From [milliseconds, bytes] in order: one track, 480 ticks a quarter, 120 quarters a minute.
// Keys that are still held are released when it was stopped.
const midiFile = (messages, stopped) => {
  const track = [], held = new Set();
  for (const [, [kind, key, velocity]] of messages)
    if (kind === 0x90 && velocity) held.add(key);
    else if (kind !== 0xb0) held.delete(key);
  const end = Math.max(stopped, messages.at(-1)[0]);
  let before = 0;
  for (const [at, data] of [...messages, ...[...held].map(key => [end, [0x80, key, 64]])]) {
    const tick = Math.round((at - messages[0][0]) * 0.96);
    track.push(...variable(tick - before), ...data);
    before = tick;
  }
  track.push(0, 0xff, 0x2f, 0);
  const four = n => [n >>> 24, n >>> 16 & 255, n >>> 8 & 255, n & 255];
  const head = [0x4d, 0x54, 0x68, 0x64, ...four(6), 0, 0, 0, 1, 1, 0xe0];
  return new Blob([new Uint8Array([...head, 0x4d, 0x54, 0x72, 0x6b, ...four(track.length), ...track])]);
};

// ------------------------------------------------------------------ what is being recorded

let stop = null, recordings = 0, later = null;

const free = is => {
  for (const id of ["choose", "record", "capture", "keyboard", "example"]) $(id).disabled = !is;
};

const stopped = text => new Promise(done => {  // show the panel until it is stopped; tell when
  const begun = performance.now();
  $("recording").hidden = false;
  $("recording-says").textContent = text;
  $("stop").focus();
  const timer = setInterval(() => {
    const now = (performance.now() - begun) / 1000;
    $("clock").textContent = `${clock(now)} of ${clock(LONGEST_S)}`;
    if (now >= LONGEST_S) stop();
  }, 100);
  stop = () => {
    clearInterval(timer);
    stop = null;
    $("recording").hidden = true;
    done(performance.now());
  };
});

// From the click on, as the browser may ask its user first: a second click begins nothing.
const recorded = (button, begin, given) => safely(async () => {
  free(false);
  recordings += 1;
  try {
    let ended, at;
    try {
      const [text, end] = await begin();
      [ended, at] = [end, await stopped(text)];
    } finally {
      free(true);
      $(button).focus();
    }
    await given(...await ended(at));
  } finally {
    recordings -= 1;
  }
  if (!recordings) later?.();
});

// At once, or when what is being recorded is kept.
export const whenKept = action => {
  if (recordings) later = action;
  else action();
};

const record = async () => {
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({
      audio: {echoCancellation: false, noiseSuppression: false, autoGainControl: false}});
  } catch {
    throw new Error("The microphone cannot be used. Allow it for this page, or choose a file.");
  }
  const type = ["audio/webm;codecs=opus", "audio/mp4"].find(MediaRecorder.isTypeSupported);
  const recorder = new MediaRecorder(stream, {mimeType: type, audioBitsPerSecond: 256000});
  const parts = [], context = new AudioContext(), heard = context.createAnalyser();
  context.createMediaStreamSource(stream).connect(heard);
  const samples = new Float32Array(heard.fftSize);
  const meter = setInterval(() => {  // 0 is -60 dBFS, 1 is full scale
    heard.getFloatTimeDomainData(samples);
    const peak = samples.reduce((most, one) => Math.max(most, Math.abs(one)), 1e-6);
    $("level").value = Math.max(0, 1 + Math.log10(peak) / 3);
  }, 60);
  recorder.ondataavailable = event => parts.push(event.data);
  const whole = new Promise(done => { recorder.onstop = done; });
  recorder.start(1000);
  return ["Play. Ten seconds are best; the end of what you play is continued.", async () => {
    clearInterval(meter);
    recorder.stop();
    await whole;
    for (const track of stream.getTracks()) track.stop();
    context.close();
    $("level").value = 0;
    const name = type.startsWith("audio/webm") ? "recording.webm" : "recording.m4a";
    return [new Blob(parts, {type}), name];
  }];
};

const keyboard = async () => {
  let access;
  try { access = await navigator.requestMIDIAccess(); } catch {
    throw new Error("The MIDI keyboard cannot be used. Allow it for this page.");
  }
  const messages = [], inputs = [...access.inputs.values()];
  if (!inputs.length) throw new Error("No MIDI keyboard is connected. Connect one and try again.");
  let notes = 0;
  const hear = ({data, timeStamp}) => {
    const kind = data[0] & 0xf0;
    if (![0x80, 0x90, 0xb0].includes(kind)) return;  // keys and pedals
    messages.push([timeStamp, [kind, data[1], data[2]]]);
    notes += kind === 0x90 && data[2] > 0;
    $("recording-says").textContent = `${notes} notes from ${inputs.map(one => one.name).join(", ")}`;
    $("level").value = kind === 0x90 ? data[2] / 127 : $("level").value;
  };
  for (const input of inputs) input.addEventListener("midimessage", hear);
  for (const input of inputs) input.open?.();
  return [`Play on ${inputs.map(one => one.name).join(", ")}.`, async at => {
    for (const input of inputs) input.removeEventListener("midimessage", hear);
    $("level").value = 0;
    if (!notes) throw new Error("No note came from the MIDI keyboard. Try again.");
    messages.sort((one, other) => one[0] - other[0]);
    return [midiFile(messages, at), "keyboard.mid"];
  }];
};

// ------------------------------------------------------------------ the drop area

// `given` is told of the job that hears the recording.
export const setUpPlay = ({asked, example}) => {
  const given = async (blob, name) => { asked((await send(blob, name)).job); };
  const chosen = safely(async input => {
    const [file] = input.files;
    input.value = "";
    if (file) await given(file, file.name);
  });
  for (const [button, input] of [["choose", "file"], ["capture", "captured"]]) {
    $(button).onclick = () => $(input).click();
    $(input).onchange = () => chosen($(input));
  }
  const can = Boolean(navigator.mediaDevices?.getUserMedia && window.MediaRecorder);
  $("record").hidden = !can;
  // Over plain HTTP from another machine no browser gives the microphone.
  $("capture").hidden = can && !matchMedia("(pointer: coarse)").matches;
  $("keyboard").hidden = !navigator.requestMIDIAccess;
  $("record").onclick = recorded("record", record, given);
  $("keyboard").onclick = recorded("keyboard", keyboard, given);
  $("stop").onclick = () => stop?.();
  $("example").onclick = safely(example);
  const drop = $("drop");
  for (const [name, over] of [["dragover", true], ["dragleave", false], ["drop", false]])
    drop.addEventListener(name, event => {
      event.preventDefault();
      drop.classList.toggle("over", over);
    });
  drop.addEventListener("drop", safely(async event => {
    const [file] = event.dataTransfer.files;
    if (!file) return say(new Error("That is no file. Drop a recording or a MIDI file."));
    await given(file, file.name);
  }));
};
