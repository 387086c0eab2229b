// The steps of a run as a tree: attempts, turns, tool calls, checks, handlers; each can be folded and looked into.

/** One step: a line, what it was given and gave, and the steps below it. */
class StepNode {
  constructor(tree) {
    this.tree = tree;
    this.shape = el("span", "anb-shape");
    this.shape.setAttribute("aria-hidden", "true");
    this.word = el("span", "anb-step-word");
    this.caret = el("span", "anb-caret");
    this.caret.setAttribute("aria-hidden", "true");
    this.kind = el("span", "anb-kind");
    this.name = untrusted("span", "anb-step-name");
    this.brief = untrusted("code", "anb-step-brief");
    this.used = el("span", "anb-step-used");
    this.elapsed = el("span", "anb-elapsed");
    this.error = untrusted("div", "anb-error");
    this.input = untrusted("pre", "anb-block");
    this.output = untrusted("pre", "anb-block");
    this.detail = el("div", "anb-step-detail", el("span", "anb-label", "input"), this.input, el("span", "anb-label", "output"), this.output);
    this.detail.hidden = true;
    this.line = el("div", "anb-step-line", this.caret, this.shape, this.word, this.kind, this.name, this.brief, this.used, this.elapsed);
    this.children = el("div", "anb-step-children");
    this.children.setAttribute("role", "group");
    this.children.hidden = true;
    this.node = el("div", "anb-step", this.line, this.error, this.detail, this.children);
    this.node.setAttribute("role", "treeitem");
    this.node.tabIndex = -1;
    this.line.addEventListener("click", (event) => {
      if (String(getSelection())) return;
      this.tree.focus(this);
      if (event.target === this.caret && this.parental) this.fold(this.open);
      else this.look();
    });
    this.open = true;
  }
  set(data) {
    this.data = data;
    this.node.dataset.status = data.status;
    setText(this.shape, data.shape || "•");
    setText(this.word, data.status === "completed" ? "" : data.status);
    setText(this.kind, data.kind || "");
    setText(this.name, data.name || "");
    setText(this.brief, data.brief || "");
    setText(this.used, data.used || "");
    setText(this.error, data.error || "");
    this.error.hidden = !data.error;
    for (const [block, text] of [[this.input, data.input], [this.output, data.output]]) {
      setText(block, text || "");
      block.hidden = block.previousElementSibling.hidden = !text;
    }
    this.tick();
  }
  get parental() {
    return this.children.hasChildNodes();
  }
  tick() {
    setText(this.elapsed, this.data.done ? this.data.elapsed || "" : this.tree.view.clock.elapsed(this.data));
  }
  /** Show that there are steps below, and how deep this one lies. */
  paint() {
    if (this.parental) this.node.setAttribute("aria-expanded", String(this.open));
    else this.node.removeAttribute("aria-expanded");
    setText(this.caret, this.parental ? (this.open ? "▾" : "▸") : "");
    this.children.hidden = !this.parental || !this.open;
  }
  fold(shut) {
    this.open = !shut;
    this.paint();
  }
  look() {
    if (!this.data.input && !this.data.output && this.parental) this.fold(this.open);
    else this.detail.hidden = !this.detail.hidden || !(this.data.input || this.data.output);
    this.node.classList.toggle("anb-looked", !this.detail.hidden);
  }
}

class StepTree {
  constructor(view) {
    this.view = view;
    this.nodes = new Map();
    this.run = undefined;
    this.top = el("div", "anb-step-top");
    this.scrolling = new Scrolling("Steps", "tree", this.top);
    this.scrolling.box.classList.add("anb-steps");
    this.scrolling.box.addEventListener("keydown", (event) => this.key(event));
    this.told = el("span", "anb-label");
    this.allButton = button("anb-quiet", "Fold all", () => this.foldAll());
    this.head = el("div", "anb-steps-head", this.told, this.allButton);
    this.node = el("div", "anb-stepsbox", this.head, this.scrolling.box, this.scrolling.jump);
    this.node.hidden = true;
  }
  clear(run) {
    this.run = run;
    this.nodes.clear();
    this.top.replaceChildren();
    this.node.hidden = true;
    this.scrolling.again();
  }
  /** Show exactly these steps. */
  reset(steps) {
    const known = new Set(steps ? steps.set.map((step) => step.id) : []);
    if (steps) this.patch({ ...steps, gone: [...this.nodes.keys()].filter((id) => !known.has(id)) });
  }
  patch(steps) {
    if (steps.run !== this.run) this.clear(steps.run);
    for (const id of steps.gone || []) {
      this.nodes.get(id)?.node.remove();
      this.nodes.delete(id);
    }
    const changed = steps.set.map((data) => {
      const item = this.nodes.get(data.id) || new StepNode(this);
      this.nodes.set(data.id, item);
      item.set(data);
      return item;
    });
    for (const item of changed) this.place(item);
    for (const item of this.nodes.values()) item.paint();
    setText(this.told, steps.told);
    this.node.hidden = !this.nodes.size;
    if (!this.current && this.nodes.size) this.top.firstElementChild.tabIndex = 0;
    this.scrolling.stay();
  }
  place(item) {
    const parent = this.nodes.get(item.data.parent);
    const home = parent && parent !== item && !item.node.contains(parent.node) ? parent.children : this.top;
    item.node.setAttribute("aria-level", String(this.depth(item)));
    item.node.anbPlace = item.data.i;
    item.node.anbItem = item;
    let after = home.lastElementChild;
    while (after && (after === item.node || after.anbPlace > item.data.i)) after = after.previousElementSibling;
    const there = after ? after.nextElementSibling : home.firstElementChild;
    if (there === item.node) return;
    if (after) after.after(item.node);
    else home.prepend(item.node);
  }
  depth(item) {
    let depth = 1;
    for (let at = this.nodes.get(item.data.parent); at && depth < 50; at = this.nodes.get(at.data.parent)) depth += 1;
    return depth;
  }
  tick() {
    for (const item of this.nodes.values()) if (!item.data.done) item.tick();
  }
  foldAll() {
    const shut = [...this.nodes.values()].some((item) => item.parental && item.open);
    for (const item of this.nodes.values()) item.fold(shut);
    setText(this.allButton, shut ? "Unfold all" : "Fold all");
  }
  focus(item) {
    for (const node of this.top.querySelectorAll('[tabindex="0"]')) node.tabIndex = -1;
    item.node.tabIndex = 0;
    this.current = item;
    item.node.focus({ preventScroll: true });
    item.line.scrollIntoView({ block: "nearest" });
  }
  /** Keys as in any tree: up and down, right and left to unfold and fold, Enter to look into a step. */
  key(event) {
    const item = document.activeElement?.anbItem;
    const shown = [...this.top.querySelectorAll(".anb-step")].filter((node) => node.offsetParent).map((node) => node.anbItem);
    const at = shown.indexOf(item);
    if (at < 0 || event.ctrlKey || event.metaKey || event.altKey) return;
    const up = item.node.parentElement.closest(".anb-step")?.anbItem;
    const steps = {
      ArrowDown: () => shown[at + 1] && this.focus(shown[at + 1]),
      ArrowUp: () => shown[at - 1] && this.focus(shown[at - 1]),
      Home: () => this.focus(shown[0]),
      End: () => this.focus(shown.at(-1)),
      ArrowRight: () => (item.parental && !item.open ? item.fold(false) : item.parental && this.focus(shown[at + 1])),
      ArrowLeft: () => (item.parental && item.open ? item.fold(true) : up && this.focus(up)),
      Enter: () => item.look(),
      " ": () => item.look(),
    };
    if (!steps[event.key]) return;
    event.preventDefault();
    event.stopPropagation();
    steps[event.key]();
  }
}
