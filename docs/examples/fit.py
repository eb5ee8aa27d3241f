import avsdn_tf
import numpy as np

rng, categories = np.random.default_rng(0), ["Bark", "Violin"]
audio = rng.random((64, 10, 128), "float32")
visual = rng.random((64, 10, 2048), "float32")
labels = rng.integers(0, 3, (64, 10))  # 2 is background
model = avsdn_tf.AVSDN(categories, audio_width=128, visual_shape=(2048,))
loss = avsdn_tf.SoftmaxBinaryCrossentropy()
model.compile("adam", loss, metrics=[avsdn_tf.EventF1()])
model.fit({"audio": audio, "visual": visual}, labels)
