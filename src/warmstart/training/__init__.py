"""The LightningModule, its optimizer and schedule, callbacks and the trainer."""
