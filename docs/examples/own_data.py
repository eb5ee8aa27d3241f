import csv
import pathlib

import numpy as np

rng, folder = np.random.default_rng(0), pathlib.Path("mydata")
folder.mkdir()
(folder / "categories.txt").write_text("Door, slamming\nKettle\n")
with (folder / "manifest.csv").open("w", newline="") as file:
    rows = csv.writer(file)
    rows.writerow("key,split,category,start_s,end_s,audio,visual".split(","))
    events = {"Door, slamming": (1, 4), "Kettle": (0, 2), "Background": ("", "")}
    for split in ("train", "validation", "test"):
        for category, times in events.items():
            files = [f"{split}_{category[:4]}.{kind}.npy" for kind in ("a", "v")]
            np.save(folder / files[0], rng.random((5, 16), "float32"))
            np.save(folder / files[1], rng.random((5, 32), "float32"))
            rows.writerow([files[0][:-6], split, category, *times, *files])
print(len(list(folder.iterdir())), "files in", folder)
