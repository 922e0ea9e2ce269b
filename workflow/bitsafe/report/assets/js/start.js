// After the page has been painted: the charts of the chosen panel, and the transcripts.

function startCharts() {
  const data = readJson("chart-data");
  const choice = element("view");
  if (!data.panels.length) return;
  choice.append(...data.panels.map((panel, place) => make("option", { value: place }, panel.title)));
  choice.closest("label").hidden = data.panels.length < 2;
  const draw = () => {
    const panel = data.panels[Number(choice.value)];
    drawTradeoff(panel);
    drawBits(panel, data.risks);
    drawMatrix(panel);
    drawContrasts(panel);
    element("charted").textContent = panel.title;
  };
  choice.addEventListener("change", draw);
  let width = document.documentElement.clientWidth, waiting = null;
  addEventListener("resize", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => {
      if (document.documentElement.clientWidth === width) return;
      width = document.documentElement.clientWidth;
      draw();
    }, 150);
  });
  draw();
}

async function start() {
  document.documentElement.classList.add("scripted");
  startCharts();
  await pause();
  await startExplorer();
  document.documentElement.dataset.ready = "true";
}

requestAnimationFrame(() => setTimeout(start));
