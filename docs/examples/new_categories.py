import avsdn_tf

model = avsdn_tf.load("runs/first").with_categories(["Saw", "Drill"])
model.audio_encoder.trainable = model.visual_encoder.trainable = False
model.compile("adam", avsdn_tf.SoftmaxBinaryCrossentropy())
model.summary()
