import avsdn_tf
import keras
import numpy as np

rng, lengths = np.random.default_rng(0), np.array([4, 9, 6])
audio = rng.random((3, 9, 128), "float32")
visual = rng.random((3, 9, 512), "float32")
active = (rng.random((3, 9, 2)) < 0.3).astype("float32")  # two categories may overlap
mask = np.arange(9) < lengths[:, None]  # True where a segment is real
model = avsdn_tf.AVSDN(["Bark", "Speech"], 128, (512,), multi_label=True)
loss = keras.losses.BinaryCrossentropy(from_logits=True)
model.compile("adam", loss, metrics=[avsdn_tf.SegmentF1(multi_label=True)])
model.fit({"audio": audio, "visual": visual, "mask": mask}, active)
