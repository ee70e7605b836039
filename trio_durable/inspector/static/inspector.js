// Live updates for pages that work without them: one stream of events per page, whose blocks
// replace those of the page. It stops while the page is hidden.

const status = document.querySelector("[data-live-status]");
const address = document.body.dataset.live;
let source = null;
let stopped = 0;

function say(symbol, text) {
  if (status && status.textContent !== `${symbol} ${text}`) status.textContent = `${symbol} ${text}`;
}

// The focused element's place, so that the same one has the focus after the exchange.
function placeOf(element, root) {
  const path = [];
  for (let at = element; at !== root; at = at.parentElement) {
    path.unshift([...at.parentElement.children].indexOf(at));
  }
  return path;
}

function at(path, root) {
  return path.reduce((element, index) => element?.children[index], root);
}

function exchange(block, html) {
  const parsed = new DOMParser().parseFromString(html, "text/html");
  // A block with a selection is left alone, so that text can be copied.
  const selection = document.getSelection();
  if (selection && !selection.isCollapsed && block.contains(selection.anchorNode)) return;
  const focused = block.contains(document.activeElement) ? document.activeElement : null;
  const path = focused && placeOf(focused, block);
  const open = [...block.querySelectorAll("details")].map((each) => [
    each.querySelector("summary")?.textContent, each.open,
  ]);
  const scrolled = [...block.querySelectorAll(".scroll, pre")].map((each) => each.scrollLeft);
  block.replaceChildren(...parsed.body.childNodes);
  for (const each of block.querySelectorAll("details")) {
    const known = open.find(([text]) => text === each.querySelector("summary")?.textContent);
    if (known) each.open = known[1];
  }
  [...block.querySelectorAll(".scroll, pre")].forEach((each, index) => {
    each.scrollLeft = scrolled[index] ?? 0;
  });
  if (path) at(path, block)?.focus({ preventScroll: true });
}

function connect() {
  if (source || !address || document.hidden) return;
  source = new EventSource(address);
  source.addEventListener("open", () => say("●", "live"));
  source.addEventListener("error", () => say("○", "not connected, trying again"));
  for (const block of document.querySelectorAll("[id^=live_]")) {
    source.addEventListener(block.id, (event) => {
      say("●", "live");
      exchange(block, event.data);
    });
  }
}

function disconnect() {
  source?.close();
  source = null;
  if (address) say("○", "paused");
}

document.addEventListener("visibilitychange", () => {
  clearTimeout(stopped);
  // A short look at another tab needs no new stream.
  if (document.hidden) stopped = setTimeout(disconnect, 1000);
  else connect();
});
addEventListener("pagehide", disconnect);
addEventListener("pageshow", connect);
connect();

for (const button of document.querySelectorAll("[data-copy]")) {
  if (!navigator.clipboard) continue;
  button.hidden = false;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
    button.textContent = "Copied";
  });
}

for (const button of document.querySelectorAll("[data-select]")) {
  button.hidden = false;
  button.addEventListener("click", () => {
    const boxes = [...button.form.querySelectorAll(`input[name=${button.dataset.select}]`)];
    const all = boxes.every((box) => box.checked);
    for (const box of boxes) box.checked = !all;
  });
}
