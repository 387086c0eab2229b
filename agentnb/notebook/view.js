// The front end of a live view (an anywidget module): the panels of a run and of a group, and what joins them to the model.

const UNCONFIRMED_MS = 1500;
const BUSY = "The kernel is busy with a blocking cell. Press the stop button (interrupt the kernel) to cancel.";

/** One run: facts, error and log; with its own header unless it opens below a row of a table. */
class RunPanel {
  constructor(view, withHeader) {
    this.view = view;
    this.pill = new Pill();
    this.name = untrusted("span", "anb-name");
    this.kind = el("span", "anb-kind");
    this.elapsed = el("span", "anb-elapsed");
    this.command = untrusted("code", "anb-command");
    this.error = untrusted("div", "anb-error");
    this.warnings = untrusted("div", "anb-warnings");
    this.facts = new Facts("");
    this.params = new Facts("anb-params");
    this.log = new Log(() => this.paint());
    this.copyButton = button("anb-quiet", "Copy output", () => this.copy());
    this.cancelButton = button("anb-cancel", "Cancel", () => view.cancel([this.run.id]));
    const tools = el("span", "anb-tools", this.copyButton, ...(withHeader ? [this.cancelButton] : []));
    const header = el("header", "anb-head", el("span", "anb-title", this.pill.node, this.name, this.kind, this.elapsed), tools);
    if (!withHeader) header.replaceChildren(this.command, tools);
    const rest = withHeader ? [this.command] : [];
    this.node = el("div", "anb-run", header, ...rest, this.error, this.warnings, this.facts.node, this.params.node, this.log.node);
  }
  set(run) {
    this.run = run;
    setText(this.name, run.name);
    this.name.title = run.name;
    setText(this.kind, run.kind);
    setText(this.command, run.command);
    this.command.title = run.command;
    this.command.hidden = !run.command;
    setText(this.error, run.error);
    this.error.hidden = !run.error;
    this.error.classList.toggle("anb-calm", run.status === "cancelled");
    setText(this.warnings, run.warnings.join("\n"));
    this.warnings.hidden = !run.warnings.length;
    this.facts.set(run.facts);
    this.params.set(run.params);
    setText(this.log.empty, run.done ? "No output" : "No output yet");
    this.paint();
  }
  paint() {
    if (!this.run) return;
    const asked = this.view.asked(this.run);
    this.pill.set(this.run, asked);
    paintCancel(this.cancelButton, this.run, asked, "Cancel");
    this.copyButton.classList.toggle("anb-over", !this.log.lines.length);
    this.tick();
  }
  tick() {
    if (this.run) setText(this.elapsed, this.view.clock.elapsed(this.run));
  }
  async copy() {
    let said = "Copied";
    try {
      await navigator.clipboard.writeText(this.log.text());
    } catch {
      const range = document.createRange();
      range.selectNodeContents(this.log.body);
      const selection = getSelection();
      selection.removeAllRanges();
      selection.addRange(range);
      said = "Selected: press Ctrl+C";
    }
    setText(this.copyButton, said);
    setTimeout(() => setText(this.copyButton, "Copy output"), 2000);
  }
}

function paintCancel(node, item, asked, label) {
  const waiting = !item.done && (asked || item.status === "cancelling");
  node.disabled = item.done || waiting;
  node.classList.toggle("anb-over", item.done);
  setText(node, waiting ? "Cancelling…" : label);
}

/** A row of the table of runs; its log opens below it. */
class Row {
  constructor(view) {
    this.view = view;
    this.pill = new Pill();
    this.toggle = button("anb-toggle", "", () => view.toggle(this.data.id));
    this.toggle.dir = "auto";
    this.params = untrusted("td", "anb-cell-params");
    this.elapsed = el("td", "anb-cell-elapsed");
    this.last = untrusted("td", "anb-cell-last");
    this.cancelButton = button("anb-quiet anb-row-cancel", "✕", () => view.cancel([this.data.id]));
    this.node = el("tr", "anb-row", el("td", "anb-cell-status", this.pill.node), el("td", "anb-cell-name", this.toggle));
    this.node.append(this.params, this.elapsed, this.last, el("td", "anb-cell-cancel", this.cancelButton));
    this.node.addEventListener("click", () => {
      if (!String(getSelection())) view.toggle(this.data.id);
    });
  }
  set(data) {
    this.data = data;
    setText(this.toggle, data.name);
    this.toggle.title = data.name;
    setText(this.params, data.params);
    this.params.title = data.params;
    setText(this.last, data.error || data.last);
    this.last.title = data.error || data.last;
    this.last.classList.toggle("anb-bad", Boolean(data.error) && data.status !== "cancelled");
    this.cancelButton.title = `Cancel ${data.name}`;
    this.cancelButton.setAttribute("aria-label", `Cancel ${data.name}`);
    this.paint();
  }
  paint() {
    const asked = this.view.asked(this.data);
    this.pill.set(this.data, asked);
    this.cancelButton.disabled = this.data.done || asked || this.data.status === "cancelling";
    this.cancelButton.classList.toggle("anb-over", this.data.done);
    const open = this.view.opened === this.data.id;
    this.toggle.setAttribute("aria-expanded", String(open));
    this.node.classList.toggle("anb-open", open);
    this.tick();
  }
  tick() {
    setText(this.elapsed, this.view.clock.elapsed(this.data));
  }
}

/** A group or a session: counts, progress, and a table that is patched row by row. */
class GroupPanel {
  constructor(view) {
    this.view = view;
    this.rows = new Map();
    this.pill = new Pill();
    this.name = untrusted("span", "anb-name");
    this.kind = el("span", "anb-kind");
    this.progressText = el("span", "anb-elapsed");
    this.cancelButton = button("anb-cancel", "Cancel all", () => view.cancel(null));
    this.bar = el("div", "anb-bar");
    this.bar.setAttribute("role", "progressbar");
    this.bar.setAttribute("aria-label", "Runs ended");
    this.bar.setAttribute("aria-valuemin", "0");
    this.chips = el("div", "anb-chips");
    this.facts = new Facts("");
    this.body = el("tbody");
    const heads = ["Status", "Run", "Parameters", "Elapsed", "Last output", ""];
    this.table = el("table", "anb-table", el("thead", "", el("tr", "", ...heads.map((text, i) => this.heading(text, i)))), this.body);
    this.scroller = el("div", "anb-scroll", this.table);
    this.empty = el("div", "anb-empty", "No runs yet. Launch one and it appears here.");
    this.more = el("div", "anb-marker");
    const title = el("span", "anb-title", this.pill.node, this.name, this.kind, this.progressText);
    const header = el("header", "anb-head", title, el("span", "anb-tools", this.cancelButton));
    const counts = el("div", "anb-counts", this.chips, this.facts.node);
    this.node = el("div", "anb-group", header, this.bar, counts, this.empty, this.scroller, this.more);
    this.detail = new RunPanel(view, false);
    const cell = el("td", "", this.detail.node);
    cell.colSpan = heads.length;
    this.detailRow = el("tr", "anb-detail", cell);
  }
  heading(text, i) {
    const node = el("th", ["anb-cell-status", "anb-cell-name", "anb-cell-params", "anb-cell-elapsed", "anb-cell-last", "anb-cell-cancel"][i], text);
    node.scope = "col";
    if (!text) node.setAttribute("aria-label", "Cancel");
    return node;
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
    this.fill(this.bar, head.counts, ([, status, count]) => {
      const part = el("span", "anb-part");
      part.dataset.status = status;
      part.style.flexGrow = String(count);
      return part;
    });
    this.fill(this.chips, head.counts, ([shape, status, count]) => {
      const mark = el("span", "anb-shape", shape);
      mark.setAttribute("aria-hidden", "true");
      const chip = el("span", "anb-chip", mark, `${count} ${status}`);
      chip.dataset.status = status;
      return chip;
    });
    this.facts.set(head.facts);
    this.paint();
  }
  fill(node, counts, make) {
    node.replaceChildren(...counts.map(make));
  }
  setRows(rows, gone) {
    for (const id of gone || []) {
      this.rows.get(id)?.node.remove();
      this.rows.delete(id);
    }
    for (const data of rows || []) {
      let row = this.rows.get(data.id);
      if (!row) {
        row = new Row(this.view);
        this.rows.set(data.id, row);
        row.set(data);
        this.place(row);
      } else row.set(data);
    }
    this.table.classList.toggle("anb-no-params", ![...this.rows.values()].some((row) => row.data.params));
    this.scroller.hidden = !this.rows.size;
    this.empty.hidden = this.rows.size > 0;
    const left = this.head.total - this.rows.size;
    setText(this.more, left > 0 ? `… and ${left} more` : "");
    this.more.hidden = left <= 0;
  }
  place(row) {
    let after = this.body.lastElementChild;
    while (after && (after === this.detailRow || this.positionOf(after) > row.data.i)) after = after.previousElementSibling;
    if (after === null) this.body.prepend(row.node);
    else after.after(row.node);
    row.node.anbPosition = row.data.i;
    this.placeDetail();
  }
  positionOf(node) {
    return node.anbPosition ?? -1;
  }
  placeDetail() {
    const row = this.rows.get(this.view.opened);
    if (!row) this.detailRow.remove();
    else if (row.node.nextElementSibling !== this.detailRow) row.node.after(this.detailRow);
  }
  paint() {
    const asked = this.view.asked(this.head);
    this.pill.set(this.head, asked);
    const idle = !this.head.done && this.head.ended === this.head.total;
    paintCancel(this.cancelButton, idle ? { done: true, status: this.head.status } : this.head, asked && !idle, "Cancel all");
    for (const row of this.rows.values()) row.paint();
    this.detail.paint();
    this.placeDetail();
  }
  tick() {
    for (const row of this.rows.values()) if (row.data.started) row.tick();
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
    this.single = state.view === "run";
    this.panel = this.single ? new RunPanel(this, true) : new GroupPanel(this);
    this.runPanel = this.single ? this.panel : this.panel.detail;
    this.node = el("section", "anb", this.panel.node, this.note, this.said);
    root.append(this.node);
    this.whole();
    this.timer = setInterval(() => document.hidden || this.panel.tick(), 1000);
  }
  /** Take the whole picture from the traits. */
  whole() {
    const state = arrived(this.model.get("state"));
    if (state.n === undefined || (this.n === state.n && !this.lost)) return;
    this.clock.set(state.now, arrivals.get(state));
    const known = new Set((state.rows || []).map((row) => row.id));
    const gone = this.single ? [] : [...this.panel.rows.keys()].filter((id) => !known.has(id));
    this.hint = state.note || "";
    this.apply({ ...state, gone });
    const tail = this.model.get("tail") || {};
    if (tail.run !== undefined) this.runPanel.log.reset(tail);
    this.n = state.n;
    this.lost = false;
    this.asking = false;
  }
  /** Take one numbered message; when one was missed, ask for the whole picture. */
  delta(message) {
    if (message?.type !== "delta" || message.n <= this.n) return;
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
      this.panel.setRows(part.rows, part.gone);
      if (part.run && part.run.id === this.opened) this.panel.detail.set(part.run);
      this.panel.paint();
    }
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
    const text = this.item.done ? "" : [...this.cancelled].some(waits) ? BUSY : this.hint;
    setText(this.note, text || "");
    this.note.hidden = !text;
  }
  confirmed(id) {
    const answered = (item) => !item || item.done || item.status === "cancelling";
    if (this.single) return answered(this.panel.run);
    const rows = [...this.panel.rows.values()].map((row) => row.data);
    return id === null ? rows.some((row) => row.status === "cancelling") || rows.every(answered) : answered(this.panel.rows.get(id)?.data);
  }
  toggle(id) {
    this.opened = this.opened === id ? null : id;
    const detail = this.panel.detail;
    const row = this.opened && this.panel.rows.get(id).data;
    if (row) {
      detail.set({ ...row, command: "", kind: "", warnings: [], facts: [], params: [] });
      detail.log.clear(id, 0);
      detail.log.following = true;
      detail.log.settle();
      setText(detail.log.empty, "Loading…");
    }
    this.panel.paint();
    if (row) this.panel.detailRow.scrollIntoView({ block: "nearest" });
    this.model.send({ type: "open", run: this.opened });
  }
  remove() {
    clearInterval(this.timer);
    this.runPanel.log.observer.disconnect();
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
  model.on("change:state", whole);
  model.on("msg:custom", delta);
  model.send({ type: "sync" });
  return () => {
    model.off("change:state", whole);
    model.off("msg:custom", delta);
    view.remove();
  };
}

export default { initialize, render };
