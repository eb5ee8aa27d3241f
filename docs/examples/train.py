import logging

import avsdn_tf

logging.basicConfig()
logging.getLogger("avsdn_tf").setLevel("INFO")  # a line for each epoch
run = avsdn_tf.train(mode="weak", epochs=3, run="runs/python")
print(run.folder, run.report["accuracy"], run.history[-1]["loss"])
print(avsdn_tf.evaluate("runs/python")["background_recall"])
