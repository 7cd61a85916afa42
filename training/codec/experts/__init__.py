"""Expert encoders trained from nothing, where no pretrained ones are to be had."""
