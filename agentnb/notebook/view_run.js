// One run of a live view.

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
    this.budget = new BudgetLine();
    this.params = new Facts("anb-params");
    this.log = new Log(() => this.paint());
    this.copyButton = button("anb-quiet", "Copy output", () => this.copy());
    this.expandButton = button("anb-quiet", "Expand", () => this.expand());
    this.expandButton.setAttribute("aria-pressed", "false");
    this.steps = new StepTree(view);
    this.cancelButton = button("anb-cancel", "Cancel", () => view.cancel([this.run.id]));
    const tools = el("span", "anb-tools", this.expandButton, this.copyButton, ...(withHeader ? [this.cancelButton] : []));
    const header = el("header", "anb-head", el("span", "anb-title", this.pill.node, this.name, this.kind, this.elapsed), tools);
    if (!withHeader) header.replaceChildren(this.command, tools);
    const rest = withHeader ? [this.command] : [];
    const told = [this.error, this.warnings, this.facts.node, this.budget.node, this.params.node];
    this.node = el("div", "anb-run", header, ...rest, ...told, this.steps.node, this.log.node);
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
    this.budget.set(run.budget);
    this.params.set(run.params);
    setText(this.log.empty, run.done ? "No output" : "No output yet");
    this.paint();
  }
  paint() {
    if (!this.run) return;
    const asked = this.view.asked(this.run);
    this.pill.set(this.run, asked);
    paintCancel(this.cancelButton, this.run, asked, "Cancel");
    for (const node of [this.copyButton, this.expandButton]) node.classList.toggle("anb-over", !this.log.lines.length);
    this.tick();
  }
  tick() {
    if (!this.run) return;
    setText(this.elapsed, this.view.clock.elapsed(this.run));
    this.steps.tick();
  }
  /** Make room for another run. */
  clear(run) {
    this.set(run);
    this.steps.clear(run.id);
    this.log.clear(run.id, 0);
    this.log.settle();
    this.log.scrolling.again();
    setText(this.log.empty, "Loading…");
  }
  expand() {
    const tall = this.node.classList.toggle("anb-tall");
    setText(this.expandButton, tall ? "Shrink" : "Expand");
    this.expandButton.setAttribute("aria-pressed", String(tall));
    this.log.scrolling.stay();
  }
  remove() {
    this.log.scrolling.observer.disconnect();
    this.steps.scrolling.observer.disconnect();
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
