// What the server is asked. Every change carries a header that no other site can send.

export const ask = async (method, path, body, headers = {}) => {
  const asked = () => fetch(path, {method, body, headers: {"X-Deep-Piano": "1", ...headers}});
  let answer;
  try {
    answer = await asked();
    if (answer.status === 403) {  // a server that was started anew: its page brings its cookie
      await fetch("/");
      answer = await asked();
    }
  } catch {
    throw new Error("The server does not answer. Start it again: deep-piano serve.");
  }
  const facts = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(facts.error ?? `The server answered ${answer.status}.`);
  return facts;
};

export const tell = (method, path, facts) => ask(method, path, JSON.stringify(facts));

export const send = (blob, name) => {
  if (blob.size > 50e6)  // as the server would say, without sending all of it
    throw new Error(`${name} has ${Math.round(blob.size / 1e6)} MB, more than 50 MB. Cut out the ` +
      "minute that you want continued, or save it as mp3.");
  return ask("POST", "/api/seeds", blob, {"X-Name": encodeURIComponent(name)});
};

export const follow = (last, {changed, reload}) => {
  const source = new EventSource(`/api/events?after=${encodeURIComponent(last)}`);
  source.onmessage = event => changed(JSON.parse(event.data));
  source.addEventListener("reload", () => { source.close(); reload(); });
  return source;
};

export const $ = id => document.getElementById(id);

export const make = (tag, props = {}, ...inside) => {
  const element = Object.assign(document.createElement(tag), props);
  element.append(...inside.filter(one => one !== null));
  return element;
};

export const clock = s => `${Math.floor(s / 60)}:${String(Math.floor(s % 60)).padStart(2, "0")}`;

export const say = error => {
  $("wrong").textContent = error ? error.message : "";
  $("wrong").hidden = !error;
  if (error) $("wrong").scrollIntoView({block: "nearest"});
};

// A handler whose error becomes one sentence on the page.
export const safely = action => async (...given) => {
  say(null);
  try { return await action(...given); } catch (error) { say(error); }
};

// The same for what nobody has clicked: an earlier sentence stays, each is a line.
export const report = ({message}) => {
  const said = $("wrong").hidden ? [] : $("wrong").textContent.split("\n");
  if (!said.includes(message)) say(new Error([...said, message].join("\n")));
};

export const quietly = action => async (...given) => {
  try { return await action(...given); } catch (error) { report(error); }
};

// What this tab works on, so that a reload goes on with it.
export const kept = (name, value) => {
  if (value === undefined) return sessionStorage.getItem(`deep_piano ${name}`);
  if (value === null) sessionStorage.removeItem(`deep_piano ${name}`);
  else sessionStorage.setItem(`deep_piano ${name}`, value);
  return value;
};
