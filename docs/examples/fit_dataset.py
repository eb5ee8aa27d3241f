import avsdn_tf
import tensorflow_datasets as tfds
import tfds_ave

clips, info = tfds.load("tfds_ave", split="train", with_info=True)
categories = info.features["clip_label"].names[:-1]


def to_pair(clip):
    return {"audio": clip["audio"], "visual": clip["visual"]}, clip["segment_labels"]


model = avsdn_tf.AVSDN(categories, audio_width=128, visual_shape=(2048,))
metrics = [avsdn_tf.metrics.SegmentAccuracy()]
model.compile("adam", avsdn_tf.SoftmaxBinaryCrossentropy(), metrics=metrics)
model.fit(clips.map(to_pair).shuffle(480).batch(64), shuffle=False)
