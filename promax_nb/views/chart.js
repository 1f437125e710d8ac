// A plotly figure in a notebook: draws whatever the model's `figure` has become. Asks the kernel for plotly.js if the page does not have it yet.

let library = null; // plotly.js, once a page

function load(source) {
  if (!library) {
    const head = 'const module={exports:{}};const exports=module.exports;const define=undefined;\n';
    const parts = [head, source, '\nexport default module.exports;\n'];
    const url = URL.createObjectURL(new Blob(parts, {type: 'text/javascript'}));
    library = import(url).then(m => m.default).finally(() => URL.revokeObjectURL(url));
    library.catch(() => { library = null; });
  }
  return library;
}

const config = {
  displaylogo: false,
  showSendToCloud: false,
  typesetMath: false,
  modeBarButtonsToRemove: ['sendChartToCloud', 'select2d', 'lasso2d'],
};

function render({model, el}) {
  const note = document.createElement('div');
  const plot = document.createElement('div');
  note.setAttribute('role', 'status');
  note.textContent = 'Loading the chart ...';
  plot.style.width = '100%';
  el.style.width = '100%';
  el.append(note, plot);

  let Plotly = null;
  let gone = false;
  let turn = Promise.resolve(); // one drawing after the other

  function problem(e) {
    const text = String(e?.message ?? e);
    note.setAttribute('role', 'alert');
    note.textContent = `The chart cannot be drawn: ${text}`;
    model.send({kind: 'error', text});
  }

  function draw() {
    turn = turn.then(async () => {
      if (gone || !Plotly) return;
      const figure = structuredClone(model.get('figure'));
      await Plotly.react(plot, figure.data, figure.layout, config);
      note.remove();
    }).catch(problem);
  }

  function start(source) {
    load(source).then(p => { Plotly = p; draw(); }).catch(problem);
  }

  function heard(message, buffers) {
    if (message.kind === 'plotly' && !Plotly) start(buffers[0]);
  }

  model.on('msg:custom', heard);
  model.on('change:figure', draw);
  const sizer = new ResizeObserver(() => { if (plot.data && plot.offsetWidth) Plotly.Plots.resize(plot); });
  sizer.observe(el);
  if (library) start();
  else model.send({kind: 'ready'});

  return () => {
    gone = true;
    model.off('msg:custom', heard);
    model.off('change:figure', draw);
    sizer.disconnect();
    if (Plotly) Plotly.purge(plot);
  };
}

export default {render};
