// The table of a group's or a session's runs: sorted, filtered, with rows in the page only for what is in sight.

const OVERSCAN = 6;
const SEE_MS = 200;
/** A table of fewer runs needs neither filter nor selection. */
const SMALL = 6;
const natural = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });

function rowOf([id, i, name, params, status, started, elapsed, took, error, last, load, memory]) {
  const index = / \[\d+\](?: \(replay\))?$/.exec(name)?.[0] || "";
  const data = { id, i, name, params, status, started, elapsed, took, error, last, load, memory, done: isDone(status) };
  return { ...data, stem: name.slice(0, name.length - index.length), index: index.trim() };
}

const COLUMNS = [
  { key: "pick", label: "" },
  { key: "status", label: "Status", of: (row) => row.status },
  { key: "name", label: "Run", of: (row) => row.name },
  { key: "params", label: "Parameters", of: (row) => row.params },
  { key: "elapsed", label: "Elapsed", of: (row, now) => row.took ?? (row.started ? now - row.started : -1) },
  { key: "load", label: "Memory", of: (row) => row.memory ?? -1 },
  { key: "last", label: "Last output", of: (row) => row.error || row.last },
  { key: "cancel", label: "" },
];

/** A row that is in sight. */
class Row {
  constructor(table) {
    this.table = table;
    const { view } = table;
    this.pill = new Pill();
    this.box = el("input", "anb-pick");
    this.box.type = "checkbox";
    this.box.addEventListener("click", (event) => {
      event.stopPropagation();
      table.pick(this.data.id, this.box.checked);
    });
    this.stem = untrusted("span", "anb-stem");
    this.index = el("span", "anb-index");
    this.toggle = button("anb-toggle", "", () => view.toggle(this.data.id));
    this.toggle.append(this.stem, this.index);
    this.toggle.addEventListener("keydown", (event) => table.key(event, this.data.id));
    this.params = untrusted("td", "anb-cell-params");
    this.elapsed = el("td", "anb-cell-elapsed");
    this.load = el("td", "anb-cell-load");
    this.last = untrusted("td", "anb-cell-last");
    this.cancelButton = button("anb-quiet anb-row-cancel", "✕", () => view.cancel([this.data.id]));
    this.node = el("tr", "anb-row", el("td", "anb-cell-pick", this.box), el("td", "anb-cell-status", this.pill.node));
    this.node.append(el("td", "anb-cell-name", this.toggle), this.params, this.elapsed, this.load, this.last);
    this.node.append(el("td", "anb-cell-cancel", this.cancelButton));
    this.node.addEventListener("click", () => {
      if (!String(getSelection())) view.toggle(this.data.id);
    });
  }
  set(data, place) {
    this.node.setAttribute("aria-rowindex", String(place + 2));
    if (this.data === data) return;
    this.data = data;
    setText(this.stem, data.stem);
    setText(this.index, data.index);
    this.toggle.title = data.name;
    setText(this.params, data.params);
    this.params.title = data.params;
    setText(this.load, data.load);
    setText(this.last, data.error || data.last);
    this.last.title = data.error || data.last;
    this.last.classList.toggle("anb-bad", Boolean(data.error) && data.status !== "cancelled");
    this.cancelButton.title = `Cancel ${data.name}`;
    this.cancelButton.setAttribute("aria-label", `Cancel ${data.name}`);
    this.box.setAttribute("aria-label", `Select ${data.name}`);
  }
  paint() {
    const { view, picked } = this.table;
    const asked = view.asked(this.data);
    this.pill.set(this.data, asked);
    this.box.checked = picked.has(this.data.id);
    this.box.classList.toggle("anb-over", this.data.done);
    this.cancelButton.disabled = this.data.done || asked || this.data.status === "cancelling";
    this.cancelButton.classList.toggle("anb-over", this.data.done);
    const open = view.opened === this.data.id;
    this.toggle.setAttribute("aria-expanded", String(open));
    this.node.classList.toggle("anb-open", open);
    this.tick();
  }
  tick() {
    setText(this.elapsed, this.table.view.clock.elapsed(this.data));
  }
}

function space() {
  const cell = el("td", "anb-space");
  const row = el("tr", "", cell);
  row.setAttribute("aria-hidden", "true");
  return { row, cell, set: (height) => { row.hidden = height <= 0; cell.style.height = `${height}px`; } };
}

class RunTable {
  constructor(view, detail) {
    this.view = view;
    this.all = new Map();
    this.order = [];
    this.shown = new Map();
    this.picked = new Set();
    this.sorted = { key: "", down: false };
    this.words = [];
    this.states = new Set();
    this.rowHeight = 27;
    this.top = 0;
    this.detail = detail;
    const cell = el("td", "", detail.node);
    this.detailRow = el("tr", "anb-detail", cell);
    this.above = space();
    this.below = space();
    this.body = el("tbody");
    this.heads = COLUMNS.map((column) => this.heading(column));
    this.table = el("table", "anb-table", el("thead", "", el("tr", "", ...this.heads)), this.body);
    this.scroller = el("div", "anb-scroll", this.table);
    this.scroller.addEventListener("scroll", () => this.scrolled(), { passive: true });
    this.observer = new ResizeObserver(() => this.resized());
    this.observer.observe(this.scroller);
    this.observer.observe(detail.node);
    this.node = el("div", "", this.tools(), this.scroller, (this.none = el("div", "anb-empty", "No run matches the filter.")));
  }
  heading(column) {
    const node = el("th", `anb-cell-${column.key}`);
    node.scope = "col";
    if (column.of) {
      const sort = button("anb-sort", column.label, () => this.sort(column.key));
      sort.append(el("span", "anb-sorted"));
      node.append(sort);
    } else if (column.key === "pick") {
      this.everyone = el("input", "anb-pick");
      this.everyone.type = "checkbox";
      this.everyone.setAttribute("aria-label", "Select all runs that are shown and go on");
      this.everyone.addEventListener("click", () => this.pickAll(this.everyone.checked));
      node.append(this.everyone);
    } else node.setAttribute("aria-label", "Cancel");
    return node;
  }
  tools() {
    this.filter = el("input", "anb-filter");
    this.filter.type = "search";
    this.filter.placeholder = "Filter runs";
    this.filter.dir = "auto";
    this.filter.setAttribute("aria-label", "Filter runs by name, parameters, status, error or last output");
    this.filter.addEventListener("input", () => {
      this.words = this.filter.value.toLowerCase().split(/\s+/).filter(Boolean);
      this.arrange();
    });
    this.matches = el("span", "anb-label");
    this.matches.setAttribute("role", "status");
    this.cancelPicked = button("anb-cancel", "", () => this.cancelThem());
    this.toolbar = el("div", "anb-toolbar", this.filter, this.matches, this.cancelPicked);
    return this.toolbar;
  }
  take(rows, gone) {
    for (const id of gone || []) {
      this.all.delete(id);
      this.picked.delete(id);
    }
    let moved = Boolean(gone?.length);
    for (const values of rows || []) {
      const row = rowOf(values);
      const known = this.all.get(row.id);
      moved ||= !known || known.i !== row.i;
      if (row.done) this.picked.delete(row.id);
      this.all.set(row.id, row);
    }
    if (moved || ((rows?.length || 0) && (this.words.length || this.states.size || this.sorted.key))) this.arrange();
    else this.render();
  }
  /** Choose and order the rows that are shown. */
  arrange() {
    const { of } = COLUMNS.find((column) => column.key === this.sorted.key) || {};
    const rows = [...this.all.values()].filter((row) => this.matching(row));
    const now = this.view.clock.now;
    rows.sort((a, b) => a.i - b.i);
    if (of) {
      const keyed = rows.map((row) => [of(row, now), row]);
      const compare = ["elapsed", "load"].includes(this.sorted.key) ? (a, b) => a - b : (a, b) => natural.compare(a, b);
      keyed.sort(([a], [b]) => (this.sorted.down ? compare(b, a) : compare(a, b)));
      this.order = keyed.map(([, row]) => row.id);
    } else this.order = rows.map((row) => row.id);
    this.places = new Map(this.order.map((id, place) => [id, place]));
    this.table.setAttribute("aria-rowcount", String(this.order.length + 1));
    this.table.classList.toggle("anb-no-params", !rows.some((row) => row.params));
    this.render();
  }
  matching(row) {
    if (this.states.size && !this.states.has(row.status)) return false;
    if (!this.words.length) return true;
    const text = `${row.name}\n${row.params}\n${row.status}\n${row.error}\n${row.last}`.toLowerCase();
    return this.words.every((word) => text.includes(word));
  }
  sort(key) {
    const again = this.sorted.key === key;
    this.sorted = again && this.sorted.down ? { key: "", down: false } : { key, down: again };
    COLUMNS.forEach((column, n) => {
      const mine = column.key === this.sorted.key;
      if (mine) this.heads[n].setAttribute("aria-sort", this.sorted.down ? "descending" : "ascending");
      else this.heads[n].removeAttribute("aria-sort");
      const mark = this.heads[n].querySelector(".anb-sorted");
      if (mark) setText(mark, mine ? (this.sorted.down ? " ▾" : " ▴") : "");
    });
    this.arrange();
  }
  /** Show only runs of this status, or again also others. */
  only(status) {
    if (!this.states.delete(status)) this.states.add(status);
    this.arrange();
  }
  pick(id, on) {
    if (on) this.picked.add(id);
    else this.picked.delete(id);
    this.render();
  }
  pickAll(on) {
    this.picked.clear();
    for (const id of on ? this.order : []) if (!this.all.get(id).done) this.picked.add(id);
    this.render();
  }
  cancelThem() {
    const ids = [...this.picked].filter((id) => !this.all.get(id)?.done);
    this.picked.clear();
    if (ids.length) this.view.cancel(ids);
    this.render();
  }
  /** Arrow keys go from run to run, also to those that are not in the page yet. */
  key(event, id) {
    const at = this.places.get(id);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: this.order.length - 1 }[event.key];
    if (to === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    event.stopPropagation();
    if (to >= 0 && to < this.order.length) this.goTo(to);
  }
  goTo(place) {
    const top = this.topOf(place);
    const room = this.scroller.clientHeight - this.table.tHead.offsetHeight;
    if (top < this.scroller.scrollTop) this.scroller.scrollTop = top;
    else if (top + this.rowHeight > this.scroller.scrollTop + room) this.scroller.scrollTop = top + this.rowHeight - room;
    this.render();
    this.shown.get(this.order[place])?.toggle.focus({ preventScroll: true });
  }
  get openPlace() {
    return this.places?.get(this.view.opened) ?? -1;
  }
  topOf(place) {
    return place * this.rowHeight + (this.openPlace >= 0 && place > this.openPlace ? this.detailHeight : 0);
  }
  placeAt(y) {
    const open = this.openPlace;
    const under = (open + 1) * this.rowHeight;
    if (open < 0 || y < under) return Math.floor(y / this.rowHeight);
    return y < under + this.detailHeight ? open : Math.floor((y - this.detailHeight) / this.rowHeight);
  }
  scrolled() {
    if (this.scroller.clientHeight) this.top = this.scroller.scrollTop;
    if (!this.pending) this.pending = requestAnimationFrame(() => this.render());
  }
  /** Out of the page it forgets where it was scrolled to. */
  resized() {
    const away = !this.scroller.clientHeight;
    if (!away && this.away) this.scroller.scrollTop = this.top;
    this.away = away;
    this.render();
  }
  /** Put the rows that are in sight into the page, and take the others out of it. */
  render() {
    cancelAnimationFrame(this.pending);
    this.pending = 0;
    const { order, scroller } = this;
    this.measure();
    const first = Math.max(0, Math.min(order.length, this.placeAt(scroller.scrollTop)) - OVERSCAN);
    const last = Math.min(order.length, this.placeAt(scroller.scrollTop + (scroller.clientHeight || 400)) + 1 + OVERSCAN);
    const wanted = [];
    const shown = new Map();
    for (let place = first; place < last; place += 1) {
      const data = this.all.get(order[place]);
      const row = this.shown.get(data.id) || new Row(this);
      row.set(data, place);
      row.paint();
      shown.set(data.id, row);
      wanted.push(row.node);
      if (place === this.openPlace) wanted.push(this.detailRow);
    }
    this.shown = shown;
    this.above.set(this.topOf(first));
    this.below.set(this.topOf(order.length) - this.topOf(last));
    this.put([this.above.row, ...wanted, this.below.row]);
    this.dress();
    this.look(first, last);
  }
  /** Make these the rows of the table, touching only what differs. The others go last: were it shorter for a moment, it would scroll. */
  put(wanted) {
    const kept = new Set(wanted);
    const stale = [...this.body.children].filter((node) => !kept.has(node));
    const focused = this.body.contains(document.activeElement);
    let at = this.body.firstElementChild;
    for (const node of wanted) {
      while (at && !kept.has(at)) at = at.nextElementSibling;
      if (node === at) at = at.nextElementSibling;
      else this.body.insertBefore(node, at);
    }
    for (const node of stale) node.remove();
    if (focused && !this.body.contains(document.activeElement)) this.scroller.focus({ preventScroll: true });
  }
  measure() {
    const row = this.shown.values().next().value;
    const height = row?.node.isConnected ? row.node.getBoundingClientRect().height : 0;
    if (height > 10) this.rowHeight = height;
    const tall = this.detailRow.isConnected ? this.detailRow.getBoundingClientRect().height : 0;
    this.detailHeight = tall || this.detailHeight || 200;
  }
  dress() {
    const { order, all, picked } = this;
    const small = all.size < SMALL;
    const filtered = order.length < all.size;
    this.toolbar.hidden = small && !this.words.length && !this.states.size;
    const plain = small || this.view.item?.done === true;
    this.table.classList.toggle("anb-no-pick", plain);
    const loads = [...this.shown.values()].some((row) => row.data.load);
    this.table.classList.toggle("anb-no-load", !loads);
    const hidden = plain + !loads + this.table.classList.contains("anb-no-params"); // a cell that spans columns which are not there would make some
    for (const cell of [this.detailRow.cells[0], this.above.cell, this.below.cell]) cell.colSpan = COLUMNS.length - hidden;
    this.scroller.hidden = !order.length;
    this.none.hidden = order.length > 0 || !all.size;
    setText(this.matches, filtered ? `${order.length} of ${all.size} shown` : "");
    setText(this.cancelPicked, `Cancel ${picked.size} selected`);
    this.cancelPicked.hidden = !picked.size;
    this.everyone.checked = picked.size > 0;
    this.scroller.tabIndex = -1;
    this.scroller.classList.toggle("anb-taller", this.openPlace >= 0); // also while the open row is out of sight
  }
  /** Tell the kernel whose output is in sight: of many runs it sends no other. */
  look(first, last) {
    const seen = this.order.slice(first, last).filter((id) => !this.all.get(id).done);
    const key = seen.join(" ");
    if (key === this.seen) return;
    this.seen = key;
    clearTimeout(this.telling);
    this.telling = setTimeout(() => this.view.model.send({ type: "see", runs: seen }), SEE_MS);
  }
  tick() {
    for (const row of this.shown.values()) if (row.data.started) row.tick();
  }
  remove() {
    clearTimeout(this.telling);
    cancelAnimationFrame(this.pending);
    this.observer.disconnect();
  }
}
