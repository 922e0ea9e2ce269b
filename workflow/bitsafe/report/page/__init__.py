"""What report.html holds beside its tables: data of its charts, every transcript, and the scripts that show them."""
