import avsdn_tf
import tensorflow_datasets as tfds
import tfds_ave

model = avsdn_tf.load("runs/first")
clips = next(tfds.load("tfds_ave", split="test").batch(4).as_numpy_iterator())
for number, events in enumerate(avsdn_tf.localize(model, clips)):
    for event in events:
        print(number, event.start_s, event.end_s, event.category, event.score)
