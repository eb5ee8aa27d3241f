
// ---- Where the network looks ----

const look = document.getElementById("look");
const looked = document.getElementById("looked");
const overlay = document.querySelector(".frame canvas");
const { rows: mapRows, columns: mapColumns, colors, percents } = data.attention;
const numCells = mapRows * mapColumns;
// One byte per cell, row by row; 255 is the segment's strongest cell.
const levels = atob(data.attention.levels);
// One pixel per cell; the overlay scales it up.
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
    `(${(100 / numCells).toFixed(1)} % if all are equal)`;
  if (overlay.hidden) return;
  drawCells(segment);
  overlay.width = overlayWidth;
  overlay.height = Math.round((overlayWidth * video.videoHeight) / video.videoWidth);
  const pen = overlay.getContext("2d");
  pen.imageSmoothingQuality = "high";
  pen.drawImage(map, 0, 0, overlay.width, overlay.height);
}

look.addEventListener("change", showWhereItLooks);
// The overlay needs the video's size.
video.addEventListener("loadedmetadata", showWhereItLooks);
// player.js sets aria-valuenow when the segment changes.
new MutationObserver(showWhereItLooks).observe(lanes, {
  attributeFilter: ["aria-valuenow"],
});
// Browsers may restore the switch when the page is reloaded.
showWhereItLooks();
