// The front end of a live view (an anywidget module): the panel of a group, and what joins panels to the model.

const UNCONFIRMED_MS = 1500;
const GONE = "The kernel that showed this is gone, and this is how things stood then. The history knows the end: agentnb.runs_df()";
const BUSY = "The kernel is busy with a blocking cell. Press the stop button (interrupt the kernel) to cancel.";

/** A group or a session: counts, progress, and the table of runs. */
class GroupPanel {
  constructor(view) {
    this.view = view;
    this.pill = new Pill();
    this.name = untrusted("span", "anb-name");
    this.kind = el("span", "anb-kind");
    this.progressText = el("span", "anb-elapsed");
    this.left = el("span", "anb-elapsed anb-left");
    this.cancelButton = button("anb-cancel", "Cancel all", () => view.cancel(null));
    this.bar = el("div", "anb-bar");
    this.bar.setAttribute("role", "progressbar");
    this.bar.setAttribute("aria-label", "Runs ended");
    this.bar.setAttribute("aria-valuemin", "0");
    this.chips = el("div", "anb-chips");
    this.chips.setAttribute("role", "group");
    this.chips.setAttribute("aria-label", "Show only runs that are");
    this.chipOf = new Map();
    this.facts = new Facts("");
    this.budget = new BudgetLine();
    this.empty = el("div", "anb-empty", "No runs yet. Launch one and it appears here.");
    this.more = el("div", "anb-marker");
    const title = el("span", "anb-title", this.pill.node, this.name, this.kind, this.progressText, this.left);
    const header = el("header", "anb-head", title, el("span", "anb-tools", this.cancelButton));
    const counts = el("div", "anb-counts", this.chips, this.facts.node);
    this.detail = new RunPanel(view, false);
    this.table = new RunTable(view, this.detail);
    this.node = el("div", "anb-group", header, this.bar, counts, this.budget.node, this.empty, this.table.node, this.more);
  }
  setHead(head) {
    this.head = head;
    setText(this.name, head.name);
    this.name.title = head.name;
    setText(this.kind, head.kind);
    setText(this.progressText, head.total ? `${head.ended} / ${head.total}` : "");
    this.bar.setAttribute("aria-valuemax", String(head.total));
    this.bar.setAttribute("aria-valuenow", String(head.ended));
    this.bar.setAttribute("aria-valuetext", `${head.ended} of ${head.total} runs ended`);
    this.bar.hidden = !head.total;
    this.bar.replaceChildren(
      ...head.counts.map(([, status, count]) => {
        const part = el("span", "anb-part");
        part.dataset.status = status;
        part.style.flexGrow = String(count);
        return part;
      }),
    );
    this.setChips(head.counts);
    this.facts.set(head.facts);
    this.budget.set(head.budget);
    this.tick();
  }
  setChips(counts) {
    const { states } = this.table;
    const known = new Set(counts.map(([, status]) => status));
    const all = [...counts, ...[...states].filter((status) => !known.has(status)).map((status) => ["", status, 0])];
    const nodes = all.map(([shape, status, count]) => {
      if (!this.chipOf.has(status)) {
        const mark = el("span", "anb-shape", shape);
        mark.setAttribute("aria-hidden", "true");
        const text = el("span");
        const chip = button("anb-chip", "", () => {
          this.table.only(status);
          this.setChips(this.head.counts);
        });
        chip.append(mark, text);
        chip.dataset.status = status;
        this.chipOf.set(status, { chip, text });
      }
      const { chip, text } = this.chipOf.get(status);
      setText(text, `${count} ${status}`);
      chip.setAttribute("aria-pressed", String(states.has(status)));
      return chip;
    });
    if (nodes.length !== this.chips.children.length || nodes.some((node, n) => node !== this.chips.children[n])) this.chips.replaceChildren(...nodes);
  }
  setRows(rows, gone) {
    this.table.take(rows, gone);
    const size = this.table.all.size;
    this.empty.hidden = size > 0;
    this.table.node.hidden = !size;
    const left = this.head.total - size;
    setText(this.more, left > 0 ? `… and ${left} more` : "");
    this.more.hidden = left <= 0;
  }
  paint() {
    const asked = this.view.asked(this.head);
    this.pill.set(this.head, asked);
    const idle = !this.head.done && this.head.ended === this.head.total;
    paintCancel(this.cancelButton, idle ? { done: true, status: this.head.status } : this.head, asked && !idle, "Cancel all");
    this.detail.paint();
    this.table.render();
  }
  tick() {
    const { until, done } = this.head;
    const left = done || !until ? 0 : this.view.clock.until(until);
    setText(this.left, left > 1 ? `about ${seconds(left)} left` : "");
    this.table.tick();
    if (this.view.opened) this.detail.tick();
  }
  remove() {
    this.table.remove();
    this.detail.remove();
  }
}

/** One view of one model: it puts state, tail and deltas together, and sends what the reader asks for. */
class View {
  constructor(model, root) {
    this.model = model;
    this.clock = new Clock();
    this.cancelled = new Map();
    this.opened = null;
    this.said = el("div", "anb-hidden");
    this.said.setAttribute("role", "status");
    this.said.setAttribute("aria-live", "polite");
    this.note = el("div", "anb-note");
    const state = arrived(model.get("state"));
    Object.assign(shapes, state.shapes);
    this.single = state.view === "run";
    this.panel = this.single ? new RunPanel(this, true) : new GroupPanel(this);
    this.runPanel = this.single ? this.panel : this.panel.detail;
    this.node = el("section", "anb", this.panel.node, this.note, this.said);
    this.node.dataset.lmSuppressShortcuts = "true"; // keys that are pressed in here are not JupyterLab's: Enter would leave for the cell's text
    root.append(this.node);
    this.whole();
    this.timer = setInterval(() => document.hidden || this.gone || this.panel.tick(), 1000);
  }
  /** Take the whole picture from the traits. */
  whole() {
    const state = arrived(this.model.get("state"));
    if (this.gone && this.goneWith !== state) this.found();
    if (state.n === undefined || (this.n === state.n && !this.lost)) return;
    this.clock.set(state.now, arrivals.get(state));
    const known = new Set((state.rows || []).map(([id]) => id));
    const gone = this.single ? [] : [...this.panel.table.all.keys()].filter((id) => !known.has(id));
    this.hint = state.note || "";
    this.apply({ ...state, gone, steps: undefined });
    if (!this.single && this.opened && this.runPanel.run?.id !== this.opened) this.opened = null;
    this.runPanel.steps.reset(state.steps);
    const tail = this.model.get("tail") || {};
    if (tail.run !== undefined) this.runPanel.log.reset(tail);
    this.n = state.n;
    this.lost = false;
    this.asking = false;
  }
  /** Take one numbered message; when one was missed, ask for the whole picture. */
  delta(message) {
    if (message?.type !== "delta" || message.n <= this.n) return;
    if (this.gone) this.found();
    if (message.n !== this.n + 1) {
      this.lost = true;
      if (!this.asking) this.model.send({ type: "sync" });
      this.asking = true;
      return;
    }
    this.n = message.n;
    this.clock.set(message.now, performance.now());
    this.apply(message);
    if (message.out) this.runPanel.log.patch(message.out);
  }
  apply(part) {
    if ("opened" in part) this.opened = part.opened;
    if (this.single) {
      if (part.run) this.panel.set(part.run);
    } else {
      if (part.head) this.panel.setHead(part.head);
      if (part.rows || part.gone) this.panel.setRows(part.rows, part.gone);
      if (part.run && part.run.id === this.opened) this.panel.detail.set(part.run);
      this.panel.paint();
    }
    if (part.steps && part.steps.run === this.runPanel.run?.id) this.runPanel.steps.patch(part.steps);
    this.announce();
    this.hintNow();
  }
  get item() {
    return this.single ? this.panel.run : this.panel.head;
  }
  announce() {
    const word = this.asked(this.item) && !this.item.done ? "cancelling" : this.item.status;
    if (word === this.word) return;
    if (this.word) setText(this.said, `${this.item.name}: ${word}`);
    this.word = word;
    this.node.setAttribute("aria-label", `${this.item.kind} ${this.item.name}`);
  }
  /** The line to the kernel is cut. Whatever comes from it later says that it was not. */
  lose() {
    if (this.gone || this.item.done) return;
    this.gone = true;
    this.goneWith = arrived(this.model.get("state"));
    this.node.classList.add("anb-gone");
    this.hintNow();
  }
  found() {
    this.gone = false;
    this.node.classList.remove("anb-gone");
  }
  asked(item) {
    return Boolean(item) && (this.cancelled.has(item.id) || (this.cancelled.has(null) && !item.done));
  }
  cancel(ids) {
    const at = performance.now();
    for (const id of ids || [null]) this.cancelled.set(id, at);
    this.model.send({ type: "cancel", runs: ids });
    this.panel.paint();
    this.announce();
    setTimeout(() => this.hintNow(), UNCONFIRMED_MS);
  }
  /** Say how to cancel a cell that blocks: where clicks never arrive in time, and where one was not answered. */
  hintNow() {
    const now = performance.now();
    const waits = ([id, at]) => now - at >= UNCONFIRMED_MS - 50 && !this.confirmed(id);
    const text = this.item.done ? "" : this.gone ? GONE : [...this.cancelled].some(waits) ? BUSY : this.hint;
    setText(this.note, text || "");
    this.note.hidden = !text;
  }
  confirmed(id) {
    const answered = (item) => !item || item.done || item.status === "cancelling";
    if (this.single) return answered(this.panel.run);
    const { all } = this.panel.table;
    if (id !== null) return answered(all.get(id));
    return this.panel.head.counts.some(([, status]) => status === "cancelling") || [...all.values()].every(answered);
  }
  toggle(id) {
    this.opened = this.opened === id ? null : id;
    const detail = this.panel.detail;
    const row = this.opened && this.panel.table.all.get(id);
    if (row) detail.clear({ ...row, command: "", kind: "", warnings: [], facts: [], params: [] });
    this.panel.paint();
    if (row) this.panel.table.detailRow.scrollIntoView({ block: "nearest" });
    this.model.send({ type: "open", run: this.opened });
  }
  remove() {
    clearInterval(this.timer);
    this.panel.remove();
    this.node.remove();
  }
}

function initialize({ model }) {
  arrived(model.get("state"));
  model.on("change:state", () => arrived(model.get("state")));
}

function render({ model, el: root }) {
  const view = new View(model, root);
  const whole = () => view.whole();
  const delta = (message) => view.delta(message);
  const lose = () => view.lose();
  model.on("change:state", whole);
  model.on("msg:custom", delta);
  model.on("comm_live_update", lose);
  model.send({ type: "sync" });
  return () => {
    model.off("change:state", whole);
    model.off("msg:custom", delta);
    model.off("comm_live_update", lose);
    view.remove();
  };
}

export default { initialize, render };
