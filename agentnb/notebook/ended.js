// What a live view turns into when all is over: its static form, which is HTML of our own (render.py), all text in it escaped.
// A page that was there all the time has it as the cell's output; this is for pages that were loaded, or opened again, in between.

function render({ model, el: root }) {
  const show = () => {
    const { html } = model.get("state");
    if (html) root.innerHTML = html;
  };
  model.on("change:state", show);
  show();
  return () => model.off("change:state", show);
}

export default { render };
