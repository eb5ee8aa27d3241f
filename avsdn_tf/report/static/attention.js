
// ---- Where the network looks ----

const look = document.getElementById("look");
const looked = document.getElementById("looked");
const overlay = document.querySelector(".frame canvas");
const { rows: mapRows, columns: mapColumns, colors, percents } = data.attention;
const numCells = mapRows * mapColumns;
// A byte a cell, row by row, in which 255 is the segment's strongest cell.
const levels = atob(data.attention.levels);
// A pixel a cell. The overlay shows it enlarged.
const map = document.createElement("canvas");
map.width = mapColumns;
map.height = mapRows;
const overlayWidth = 640;

function drawCells(segment) {
  const pen = map.getContext("2d");
  pen.clearRect(0, 0, mapColumns, mapRows);
  for (let cell = 0; cell < numCells; cell++) {
    const level = levels.charCodeAt(segment * numCells + cell) / 255;
    pen.fillStyle = colors[Math.round(level * (colors.length - 1))];
    pen.globalAlpha = 0.4 + 0.15 * level;
    pen.fillRect(cell % mapColumns, Math.floor(cell / mapColumns), 1, 1);
  }
}

function showWhereItLooks() {
  overlay.hidden = !look.checked || !video.videoWidth;
  if (!look.checked) return;
  const segment = segmentAt(time);
  const first = segment * numCells;
  const strongest = levels.indexOf("\xff", first) - first;
  const row = Math.floor(strongest / mapColumns) + 1;
  looked.textContent =
    `Strongest cell: row ${row} of ${mapRows}, column ` +
    `${(strongest % mapColumns) + 1} of ${mapColumns}, with ` +
    `${percents[segment].toFixed(1)} % of the weight ` +
    `(${(100 / numCells).toFixed(1)} % if even)`;
  if (overlay.hidden) return;
  drawCells(segment);
  overlay.width = overlayWidth;
  overlay.height = Math.round((overlayWidth * video.videoHeight) / video.videoWidth);
  const pen = overlay.getContext("2d");
  pen.imageSmoothingQuality = "high";
  pen.drawImage(map, 0, 0, overlay.width, overlay.height);
}

look.addEventListener("change", showWhereItLooks);
// The frame's size is known from here on.
video.addEventListener("loadedmetadata", showWhereItLooks);
// The player has come to another segment.
new MutationObserver(showWhereItLooks).observe(lanes, {
  attributeFilter: ["aria-valuenow"],
});
// A browser may keep the switch when the page is loaded again.
showWhereItLooks();
