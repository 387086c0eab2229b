// The parts that live views are made of. All view*.js files together, in the order of widgets.py, are one module.
// Whatever comes from a process is set as text, never as markup.

const MAX_LINES = 2000;
/** When each state object reached this page: the kernel's clock is read as of then. */
const arrivals = new WeakMap();

function arrived(state) {
  if (state && !arrivals.has(state)) arrivals.set(state, performance.now());
  return state || {};
}

function el(tag, className, ...children) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  node.append(...children);
  return node;
}

function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
  return node;
}

function button(className, label, onClick) {
  const node = el("button", `anb-button ${className}`, label);
  node.type = "button";
  node.addEventListener("click", (event) => {
    event.stopPropagation();
    onClick(event);
  });
  return node;
}

function untrusted(tag, className) {
  const node = el(tag, className);
  node.dir = "auto";
  return node;
}

function seconds(total) {
  const whole = Math.max(0, Math.floor(total));
  const pad = (n) => String(n).padStart(2, "0");
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} m ${pad(whole % 60)} s`;
  return `${Math.floor(whole / 3600)} h ${pad(Math.floor((whole % 3600) / 60))} m`;
}

/** Seconds since a stamp of the kernel's clock, whatever the browser's clock says. */
class Clock {
  set(now, at) {
    this.now = now;
    this.at = at;
  }
  elapsed(item) {
    if (item.done || !item.started) return item.elapsed;
    return seconds(this.now - item.started + (performance.now() - this.at) / 1000);
  }
  /** Seconds until a stamp of the kernel's clock. */
  until(stamp) {
    return stamp - this.now - (performance.now() - this.at) / 1000;
  }
}

/** The shape of each status, as the kernel says. */
const shapes = {};

class Pill {
  constructor() {
    this.shape = el("span", "anb-shape");
    this.shape.setAttribute("aria-hidden", "true");
    this.word = el("span");
    this.node = el("span", "anb-pill", this.shape, this.word);
  }
  set(item, asked) {
    const waiting = asked && !item.done;
    const status = waiting ? "cancelling" : item.status;
    this.node.dataset.status = status;
    setText(this.shape, shapes[status] || "•");
    setText(this.word, status === "cancelling" ? "cancelling…" : status);
  }
}

function isDone(status) {
  return !["pending", "running", "cancelling"].includes(status);
}

/** (label, value) pairs on a line that wraps. */
class Facts {
  constructor(className) {
    this.node = el("div", `anb-facts ${className}`);
    this.shown = "";
  }
  set(pairs) {
    const key = JSON.stringify(pairs);
    if (key === this.shown) return;
    this.shown = key;
    this.node.hidden = !pairs.length;
    this.node.replaceChildren(
      ...pairs.map(([label, value]) => {
        const name = untrusted("span", "anb-label");
        const text = untrusted("span", "anb-value");
        setText(name, label);
        setText(text, value);
        return el("span", "anb-fact", name, " ", text);
      }),
    );
  }
}

/** What is spent of a budget: a line and a bar. */
class BudgetLine {
  constructor() {
    this.text = el("span", "anb-value");
    this.fill = el("span", "anb-budget-fill");
    this.bar = el("span", "anb-budget-bar", this.fill);
    this.bar.setAttribute("aria-hidden", "true");
    this.node = el("div", "anb-budget", el("span", "anb-label", "budget"), this.text, this.bar);
    this.node.hidden = true;
  }
  set(budget) {
    this.node.hidden = !budget;
    if (!budget) return;
    setText(this.text, budget.text);
    this.node.dataset.level = budget.level;
    this.fill.style.width = `${100 * budget.share}%`;
  }
}

/** A box that scrolls: it follows its end until the reader scrolls up, and stays where the reader was. */
class Scrolling {
  constructor(label, role, ...children) {
    this.following = true;
    this.top = 0;
    this.box = el("div", "anb-box", ...children);
    this.box.tabIndex = 0;
    this.box.setAttribute("role", role);
    this.box.setAttribute("aria-label", label);
    this.box.addEventListener("scroll", () => this.scrolled(), { passive: true });
    this.jump = button("anb-jump", "Jump to end", () => this.follow());
    this.jump.hidden = true;
    // The box has no height until the page shows it, and gets another one when the page is made narrower.
    this.observer = new ResizeObserver(() => this.resized());
    this.observer.observe(this.box);
  }
  /** Out of the page it forgets where it was scrolled to. */
  resized() {
    const away = !this.box.clientHeight;
    if (!away && this.away) this.box.scrollTop = this.top;
    this.away = away;
    this.stay();
  }
  stay() {
    if (this.following) this.box.scrollTop = this.box.scrollHeight;
  }
  scrolled() {
    const { scrollHeight, scrollTop, clientHeight } = this.box;
    if (!clientHeight) return;
    this.top = scrollTop;
    this.following = scrollHeight - scrollTop - clientHeight < 12;
    this.jump.hidden = this.following;
  }
  follow() {
    this.following = true;
    this.jump.hidden = true;
    this.box.scrollTop = this.box.scrollHeight;
    this.box.focus({ preventScroll: true });
  }
  again() {
    this.following = true;
    this.jump.hidden = true;
    this.stay();
  }
}

/** The tail of a run's output. */
class Log {
  constructor(onChange) {
    this.onChange = onChange;
    this.run = undefined;
    this.first = 0;
    this.lines = [];
    this.marker = el("div", "anb-marker", "Earlier output is not shown here.");
    this.marker.hidden = true;
    this.body = el("div", "anb-lines");
    this.scrolling = new Scrolling("Output", "log", this.marker, this.body);
    this.box = this.scrolling.box;
    this.box.classList.add("anb-log");
    this.box.setAttribute("aria-live", "off");
    this.empty = el("div", "anb-empty", "No output yet");
    this.node = el("div", "anb-logbox", this.empty, this.box, this.scrolling.jump);
    this.box.hidden = true;
  }
  /** Show exactly these lines. */
  reset(tail) {
    const same = tail.run === this.run && tail.first >= this.first && tail.first <= this.first + this.lines.length;
    if (!same) this.clear(tail.run, tail.first || 0);
    this.patch({ base: tail.first || 0, ...tail, lines: tail.lines || [] });
  }
  clear(run, first) {
    this.run = run;
    this.first = first;
    this.lines = [];
    this.body.replaceChildren();
  }
  /** Put these lines in the place of all from number `base` on; lines that stay the same are not touched. */
  patch(out) {
    const gap = out.base > this.first + this.lines.length;
    if (out.run !== this.run || gap) this.clear(out.run, out.base);
    const start = Math.max(0, out.base - this.first);
    const fresh = [];
    out.lines.forEach((line, i) => {
      const key = JSON.stringify(line);
      const at = start + i;
      if (at >= this.lines.length) {
        this.lines.push(key);
        fresh.push(this.line(line, el("div")));
      } else if (this.lines[at] !== key) {
        this.lines[at] = key;
        this.line(line, this.body.children[at]);
      }
    });
    const end = start + out.lines.length;
    this.lines.length = end;
    while (this.body.children.length + fresh.length > end) this.body.lastChild.remove();
    this.body.append(...fresh);
    this.settle();
    this.onChange();
  }
  line(line, node) {
    const [stream, spans] = typeof line === "string" ? ["stdout", [["", line]]] : line;
    node.className = stream === "stderr" ? "anb-line anb-stderr" : "anb-line";
    node.replaceChildren(
      ...spans.map(([style, text]) => {
        if (!style) return document.createTextNode(text);
        return el("span", style.split(" ").map((name) => `anb-a-${name}`).join(" "), text);
      }),
    );
    if (!node.hasChildNodes()) node.append("\u200b");
    return node;
  }
  settle() {
    if (this.scrolling.following && this.lines.length > MAX_LINES) {
      const cut = this.lines.length - MAX_LINES + 200;
      this.lines.splice(0, cut);
      this.first += cut;
      for (let i = 0; i < cut; i += 1) this.body.firstChild.remove();
    }
    this.marker.hidden = this.first === 0;
    this.box.hidden = !this.lines.length;
    this.empty.hidden = this.lines.length > 0;
    this.scrolling.stay();
  }
  text() {
    return [...this.body.children].map((node) => node.textContent.replace("\u200b", "")).join("\n");
  }
}
