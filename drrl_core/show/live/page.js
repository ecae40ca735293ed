// The model of an explorer in a page without a server; its state stands in the page's address.

/** Parts of the address, `name.dial` -> text: a link brings back what was seen. */
const addressed = () => new URLSearchParams(location.hash.slice(1).includes("=") ? location.hash.slice(1) : "");

function startInPage({ render }, id, state) {
  const [heard, first] = [{}, { ...state }];
  const tell = (name) => (heard[`change:${name}`] ?? []).forEach((hear) => hear());
  function read() {
    for (const [place, text] of addressed()) {
      const [whose, name] = place.split(/\.(?=[^.]*$)/);
      if (whose !== id || !(name in first) || name === "data") continue;
      const value = typeof first[name] === "string" && first[name] !== "inf" ? text : text === "inf" ? text : Number(text);
      if (typeof value !== "number" || Number.isFinite(value)) state[name] = value;
      tell(name);
    }
  }
  function link() {
    const parts = addressed();
    for (const name of Object.keys(first)) if (name !== "data") parts.set(`${id}.${name}`, state[name]);
    return `${location.href.split("#")[0]}#${parts}`;
  }
  const model = {
    link,
    get: (name) => state[name],
    set(name, value) {
      state[name] = value;
      tell(name);
    },
    on: (event, hear) => (heard[event] ??= []).push(hear),
    off: (event, hear) => (heard[event] = (heard[event] ?? []).filter((each) => each !== hear)),
    save_changes: () => history.replaceState(null, "", link()),
  };
  read();
  addEventListener("hashchange", read);
  render({ model, el: document.getElementById(id) });
  return model;
}
