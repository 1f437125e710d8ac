// Draws the figures of a page with the plotly.js beside it; until then, and without scripts, their stills stand there.
document.querySelectorAll('.promax-figure').forEach(place => {
  const figure = JSON.parse(place.nextElementSibling.textContent);
  place.replaceChildren();
  Plotly.newPlot(place, figure.data, { ...figure.layout, width: undefined, autosize: true },
    { responsive: true, displaylogo: false, showSendToCloud: false, showLink: false });
});
