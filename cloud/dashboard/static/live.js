// Keeps the page like the server's: listens to a stream of the page's content
// and swaps the parts that differ, so that selection, scrolling and focus
// elsewhere stay as they are.

const content = document.getElementById("content");
const link = document.getElementById("link");
const word = document.getElementById("link-word");

function show(state, text) {
  link.dataset.state = state;
  word.textContent = text;
}

// merge makes the children of now like those of want. All of them have ids;
// what is the same stays, and only the smallest part that differs is replaced.
function merge(now, want) {
  const known = new Map([...now.children].map((e) => [e.id, e]));
  let at = now.firstElementChild;
  for (const next of [...want.children]) {
    const old = known.get(next.id);
    if (!old) {
      now.insertBefore(next, at);
      continue;
    }
    known.delete(next.id);
    if (old !== at) {
      now.insertBefore(old, at);
    } else {
      at = at.nextElementSibling;
    }
    if (html(old) !== html(next)) {
      const parts = [...next.children].every((e) => e.id) && next.children.length > 0;
      if (parts && old.cloneNode(false).isEqualNode(next.cloneNode(false))) {
        merge(old, next);
      } else {
        old.replaceWith(next);
        flash(next);
      }
    }
  }
  for (const gone of known.values()) {
    gone.remove();
  }
}

// html is the markup without the words this script put into times.
function html(element) {
  const copy = element.cloneNode(true);
  for (const t of copy.querySelectorAll("time")) {
    t.textContent = "";
    t.removeAttribute("title");
  }
  return copy.innerHTML + copy.className;
}

function flash(element) {
  if (element.matches(".device")) {
    element.classList.add("changed");
    element.addEventListener("animationend", () => element.classList.remove("changed"), { once: true });
  }
}

function ago(at, now) {
  const s = Math.max(0, Math.round((now - at) / 1000));
  if (s < 10) return "just now";
  const units = [[86400, "day"], [3600, "hour"], [60, "minute"], [1, "second"]];
  const [size, name] = units.find(([n]) => s >= n);
  const n = Math.floor(s / size);
  return `${n} ${name}${n === 1 ? "" : "s"} ago`;
}

function times() {
  for (const t of document.querySelectorAll("time")) {
    const at = Date.parse(t.dateTime);
    t.title = new Date(at).toLocaleString();
    t.textContent = ago(at, Date.now());
  }
}

const stream = new EventSource("/live");
stream.addEventListener("open", () => show("live", "live"));
stream.addEventListener("error", () => show("lost", "connecting again"));
stream.addEventListener("end", () => location.reload());
stream.addEventListener("content", (event) => {
  const want = new DOMParser().parseFromString(`<main>${event.data}</main>`, "text/html").querySelector("main");
  merge(content, want);
  times();
  show("live", "live");
});

times();
setInterval(times, 5000);
