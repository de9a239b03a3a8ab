"""What is done with a drawn log: it is read, trained on, evaluated, predicted, gone on with, described."""
